"""`World`: objects in and out, faults, counts, and coming to rest."""

import asyncio
from collections.abc import Awaitable, Sequence

import pytest

from kaito.runtime import Cached
from kaito.runtime.client.client import Client
from kaito.runtime.clock import monotonic
from kaito.runtime.errors import Invalid, NotFound, RequestTimeout, ServerError, TooManyRequests, TransportError
from kaito.runtime.kinds import ConfigMap, Deployment, Node, Pod
from kaito.runtime.meta import Model, ObjectMeta, Resource
from kaito.runtime.tasks import TaskScope
from kaito.runtime.testing import NotSettled, World, node, pod


class GadgetSpec(Model):
    size: int = 1


class GadgetStatus(Model):
    ready: int = 0


class Gadget(Resource, api="test.example.com/v1", kind="Gadget"):
    spec: GadgetSpec = GadgetSpec()
    status: GadgetStatus = GadgetStatus()


def config(name: str, **data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name), data=data)


async def test_objects_go_in_and_out(world: World) -> None:
    stored = world.put(config("a", k="1"))
    assert stored.uid
    assert world.get(ConfigMap, "a").data == {"k": "1"}
    world.put(config("a", k="2"))
    assert world.get(ConfigMap, "a").data == {"k": "2"}
    assert world.patch(ConfigMap, "a", {"data": {"k": "3"}}).data == {"k": "3"}
    assert [found.name for found in world.list(ConfigMap, "default")] == ["a"]
    world.delete(ConfigMap, "a")
    assert world.find(ConfigMap, "a") is None
    with pytest.raises(NotFound):
        world.get(ConfigMap, "a")


async def test_custom_kinds_are_installed_and_status_is_stored(world: World) -> None:
    world.put(Gadget(metadata=ObjectMeta(name="g"), spec=GadgetSpec(size=3), status=GadgetStatus(ready=2)))
    gadget = world.get(Gadget, "g")
    assert (gadget.spec.size, gadget.status.ready, gadget.metadata.generation) == (3, 2, 1)
    with pytest.raises(Invalid):
        world.patch(Gadget, "g", {"spec": {"size": "many"}})


async def test_the_defaults_of_a_cache_are_not_a_kind_to_install(world: World) -> None:
    world.put(config("a"))
    async with world.manager(cache=[Cached(Resource, relist=3600), Cached(ConfigMap)]) as manager:
        assert [found.name for found in await manager.api.list(ConfigMap, namespace="default")] == ["a"]


async def test_makers_make_what_a_healthy_cluster_has(world: World) -> None:
    assert world.put(node("n1", labels={"pool": "gpu"}, capacity={"nvidia.com/gpu": "2"})).is_ready
    owner = world.put(config("owner"))
    made = world.put(pod("p", labels={"app": "x"}, node_name="n1", owner=owner))
    assert made.status.phase == "Running"
    assert world.list(Pod, labels={"app": "x"})[0].metadata.owner_references[0].uid == owner.uid
    assert world.get(Node, "n1").labels["kubernetes.io/hostname"] == "n1"


async def test_faults_hit_the_code_under_test_only(world: World) -> None:
    client = Client(world.transport(), field_manager="test")
    world.put(config("a"))
    world.fail_next("GET", ConfigMap, status=429, retry_after=60)
    assert world.get(ConfigMap, "a").name == "a"
    with pytest.raises(TooManyRequests) as caught:
        await client.get(ConfigMap, "a", "default")
    assert caught.value.retry_after == 60
    assert (await client.get(ConfigMap, "a", "default")).name == "a"
    assert world.count("GET", ConfigMap) == 2
    assert world.count("get", Deployment) == 0


async def test_a_hanging_server_costs_virtual_time_only(world: World) -> None:
    client = Client(world.transport(), field_manager="test")
    world.put(config("a"))
    world.fail_next("GET", hang=True)
    with pytest.raises(RequestTimeout):
        await client.get(ConfigMap, "a", "default")
    assert monotonic() == pytest.approx(30)


async def test_a_dropped_connection_has_done_its_work(world: World) -> None:
    transport = world.transport()
    world.fail_next("POST", ConfigMap, drop_connection=True)
    with pytest.raises(TransportError):
        await transport.request("POST", "/api/v1/namespaces/default/configmaps", body=b'{"metadata":{"name":"a"}}')
    assert world.get(ConfigMap, "a").name == "a"


async def test_streams_deliver_break_and_time_out(world: World) -> None:
    transport = world.transport()
    chunks: list[bytes] = []

    async def read(idle: float | None) -> None:
        async with transport.stream("GET", "/api/v1/configmaps?watch=true", idle=idle) as stream:
            async for chunk in stream.chunks():
                chunks.append(chunk)  # noqa: PERF401 - seen while the stream is open

    async with TaskScope("test") as scope:
        reader = scope.spawn(_caught(read(None)), name="reader")
        await world.settle()
        world.put(config("a"))
        await world.settle()
        assert b'"name":"a"' in chunks[-1]
        assert transport.open_streams == 1
        transport.break_streams()
        assert isinstance(await reader, TransportError)
        assert transport.open_streams == 0
    assert isinstance(await _caught(read(5)), RequestTimeout)


async def _caught(work: Awaitable[None]) -> Exception | None:
    try:
        await work
    except Exception as error:
        return error
    return None


async def test_an_unreachable_server_rejects(world: World) -> None:
    transport = world.transport()
    transport.reachable = False
    with pytest.raises(TransportError, match="refused"):
        await transport.request("GET", "/version")
    await transport.close()
    with pytest.raises(TransportError, match="closed"):
        await transport.request("GET", "/version")


async def test_settle_waits_for_work_and_reports_work_in_progress(world: World) -> None:
    class Worker:
        until = 5.0

        def busy(self) -> Sequence[str]:
            return ["worker is at it"] if monotonic() < self.until else []

    worker = Worker()
    world.track(worker)
    async with TaskScope("test") as scope:
        scope.spawn(_tick(), name="tick")
        await world.settle()
        assert monotonic() == 5
        worker.until = 10_000.0
        with pytest.raises(NotSettled, match="worker is at it"):
            await world.settle(limit=60)


async def _tick() -> None:
    while True:  # noqa: ASYNC110 - a timer is the point
        await asyncio.sleep(1)


async def test_advance_fires_timers_and_moves_the_wall_clock(world: World) -> None:
    before = world.now
    await world.advance(90)
    assert (world.now - before).total_seconds() == 90


async def test_internal_errors_are_injected_by_default(world: World) -> None:
    client = Client(world.transport(), field_manager="test")
    world.fail_next("POST", ConfigMap)
    with pytest.raises(ServerError):
        await client.create(config("a").with_metadata(namespace="default"))
