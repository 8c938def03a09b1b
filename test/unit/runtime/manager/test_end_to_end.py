"""The whole way in memory: manager, cache, controller and client keep a custom resource converged."""

import pytest

from kaito.runtime.controller import Controller
from kaito.runtime.kinds import Container, Deployment, DeploymentSpec, PodSpec, PodTemplateSpec
from kaito.runtime.meta import Condition, LabelSelector, Model, ObjectMeta, Resource, find_condition
from kaito.runtime.reconcile import Again, Request
from kaito.runtime.testing import World, workloads


class MemcachedSpec(Model):
    size: int = 1


class MemcachedStatus(Model):
    ready_replicas: int = 0
    conditions: list[Condition] = []


class Memcached(Resource, api="cache.example.com/v1", kind="Memcached", plural="memcacheds"):
    spec: MemcachedSpec = MemcachedSpec()
    status: MemcachedStatus = MemcachedStatus()


def deployment_for(memcached: Memcached) -> Deployment:
    labels = {"app": memcached.name}
    return Deployment(
        metadata=ObjectMeta(name=memcached.name, namespace=memcached.namespace),
        spec=DeploymentSpec(
            replicas=memcached.spec.size,
            selector=LabelSelector(match_labels=labels),
            template=PodTemplateSpec(
                metadata=ObjectMeta(labels=labels),
                spec=PodSpec(containers=[Container(name="memcached", image="memcached:1.6")]),
            ),
        ),
    )


class Operator:
    def __init__(self) -> None:
        self.cleaned: list[str] = []
        self.cleanup_takes = 1

    async def reconcile(self, request: Request[Memcached]) -> Again | None:
        memcached, api = request.object, request.api
        async with request.status() as status:
            workload = await api.ensure(deployment_for(memcached), owner=memcached)
            ready = workload.status.ready_replicas >= memcached.spec.size
            status.set(ready_replicas=workload.status.ready_replicas)
            status.condition("Ready", ready, "AllReplicasReady" if ready else "Scaling")
        return None if ready else Again(30, why="replicas pending")

    async def clean_up(self, request: Request[Memcached]) -> Again | None:
        self.cleaned.append(request.key.name)
        return None if len(self.cleaned) >= self.cleanup_takes else Again(5, "still going")

    def controller(self) -> Controller[Memcached]:
        return (
            Controller(Memcached, self.reconcile, workers=2)
            .owns(Deployment)
            .finalizes("cache.example.com/finalizer", self.clean_up)
        )


@pytest.mark.sample(3)
@pytest.mark.seeds(10)
async def test_a_custom_resource_converges_and_goes(world: World) -> None:
    operator = Operator()
    operator.cleanup_takes = 2
    await world.start(*workloads(ready_after=20))
    async with world.manager(operator.controller()):
        world.put(Memcached(metadata=ObjectMeta(name="cache"), spec=MemcachedSpec(size=3)))
        await world.settle()
        memcached = world.get(Memcached, "cache")
        ready = find_condition(memcached.status.conditions, "Ready")
        assert ready is not None
        assert (ready.status, ready.reason, ready.observed_generation) == ("False", "Scaling", 1)
        assert memcached.metadata.finalizers == ["cache.example.com/finalizer"]
        deployment = world.get(Deployment, "cache")
        assert deployment.spec.replicas == 3
        assert deployment.metadata.owner_references[0].uid == memcached.uid

        await world.advance(21)
        memcached = world.get(Memcached, "cache")
        assert memcached.status.ready_replicas == 3
        ready = find_condition(memcached.status.conditions, "Ready")
        assert ready is not None
        assert ready.is_true

        writes = world.count("PATCH")
        await world.advance(600)
        assert world.count("PATCH") == writes

        world.delete(Memcached, "cache")
        await world.settle()
        assert operator.cleaned == ["cache"]
        assert world.get(Memcached, "cache").deleting
        await world.advance(5)
        assert operator.cleaned == ["cache", "cache"]
        assert world.find(Memcached, "cache") is None
        assert world.find(Deployment, "cache") is None


@pytest.mark.sample(3)
@pytest.mark.seeds(10)
async def test_an_outside_change_is_put_right(world: World) -> None:
    operator = Operator()
    await world.start(*workloads())
    async with world.manager(operator.controller()):
        world.put(Memcached(metadata=ObjectMeta(name="cache"), spec=MemcachedSpec(size=2)))
        await world.settle()
        world.patch(Deployment, "cache", {"spec": {"replicas": 7}})
        await world.settle()
        assert world.get(Deployment, "cache").spec.replicas == 2
        assert world.get(Memcached, "cache").status.ready_replicas == 2
