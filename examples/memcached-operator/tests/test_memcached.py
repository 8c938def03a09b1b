from pathlib import Path

import pytest
from kaito.runtime import ObjectMeta
from kaito.runtime.kinds import Deployment, Secret, Service
from kaito.runtime.testing import World, workloads

from memcached_operator.api import Memcached, MemcachedSpec, definition
from memcached_operator.controller import controller

DEPLOY = Path(__file__).parents[1] / "deploy"
ACCOUNT = "system:serviceaccount:memcached-operator:memcached-operator"


def memcached(**spec: object) -> Memcached:
    return Memcached(metadata=ObjectMeta(name="sessions"), spec=MemcachedSpec.model_validate(spec))


def readiness(world: World) -> tuple[str, str, str]:
    ready = world.condition(Memcached, "sessions", "Ready")
    return ready.status, ready.reason, ready.message


async def test_the_status_follows_the_servers(world: World) -> None:
    world.install(definition())
    await world.start(*workloads(ready_after=20))
    async with world.manager(controller):
        world.put(memcached(size=3))
        await world.settle()
        assert world.get(Service, "sessions").spec.selector["app.kubernetes.io/instance"] == "sessions"
        assert readiness(world) == ("False", "Scaling", "0 of 3 servers are ready")

        await world.advance(20)
        assert readiness(world) == ("True", "AllReady", "3 of 3 servers are ready")


async def test_nothing_is_written_when_nothing_changes(world: World) -> None:
    await world.start(*workloads())
    async with world.manager(controller):
        world.put(memcached())
        await world.settle()
        world.clear_requests()
        await world.advance(3600)
        assert world.count("PATCH") == world.count("POST") == world.count("PUT") == 0


async def test_a_missing_secret_is_reported_and_its_creation_noticed(world: World) -> None:
    await world.start(*workloads())
    async with world.manager(controller):
        world.put(memcached(authSecret="users"))
        await world.settle()
        assert readiness(world) == ("False", "SecretMissing", "Secret users does not exist")

        world.put(Secret(metadata=ObjectMeta(name="users")).with_values(auth=b"app:hunter2"))
        await world.settle()
        assert readiness(world)[0] == "True"

        before = world.get(Deployment, "sessions").metadata.generation
        world.put(Secret(metadata=ObjectMeta(name="users")).with_values(auth=b"app:changed"))
        await world.settle()
        assert world.get(Deployment, "sessions").metadata.generation == before + 1


async def test_the_service_is_deleted_before_the_servers(world: World) -> None:
    await world.start(*workloads())
    async with world.manager(controller):
        world.put(memcached(drainSeconds=30))
        await world.settle()
        world.delete(Memcached, "sessions")
        await world.settle()
        assert world.find(Service, "sessions") is None
        assert world.find(Deployment, "sessions") is not None

        await world.advance(30)
        assert world.find(Memcached, "sessions") is None
        assert world.find(Deployment, "sessions") is None


async def test_the_roles_are_sufficient(world: World) -> None:
    world.apply(DEPLOY)  # the CRD, the roles, the sample
    await world.start(*workloads())
    async with world.manager(controller, user=ACCOUNT):
        await world.settle()
        assert readiness(world) == ("True", "AllReady", "3 of 3 servers are ready")


@pytest.mark.seeds(5)
async def test_failed_requests_only_cost_time(world: World) -> None:
    await world.start(*workloads())
    async with world.manager(controller):
        world.fail_next("PATCH", Deployment, status=429, retry_after=7)
        world.fail_next("PATCH", Deployment, drop_connection=True)
        world.put(memcached(size=2))
        await world.advance(60)
        assert readiness(world) == ("True", "AllReady", "2 of 2 servers are ready")
