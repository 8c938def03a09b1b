"""Polls and inbound calls of a controller whose keys are divided over replicas."""

from collections import Counter

from kaito.runtime.controller import Controller
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.manager import Manager, Shards
from kaito.runtime.meta import ObjectKey, ObjectMeta
from kaito.runtime.reconcile import Request
from kaito.runtime.source import Inbound, InboundCall, Polling, PollRequest
from kaito.runtime.testing import World

NAMES = [f"c{number}" for number in range(24)]


class Replica:
    """A manager with a polling and an inbound source, and what they did."""

    def __init__(self, world: World, name: str, answers: dict[str, str]) -> None:
        self.polled: list[str] = []
        self.runs: list[str] = []
        self.answers = answers
        self.polling: Polling[ConfigMap, str] = Polling(ConfigMap, self.read, every=10)
        hook = Inbound("/hook", self.called, authenticate=lambda _: True)
        controller = Controller(ConfigMap, self.reconcile).receives(self.polling).receives(hook)
        self.manager: Manager = world.manager(controller, lease="op", shards=Shards(8), name=name, seed=len(name))

    async def read(self, poll: PollRequest[ConfigMap]) -> str:
        self.polled.append(poll.key.name)
        return self.answers.get(poll.key.name, "")

    async def reconcile(self, request: Request[ConfigMap]) -> None:
        polled = self.polling.of(request)
        self.runs.append(f"{request.key.name}: {polled.value if polled.known else 'unknown'}")

    def called(self, call: InboundCall) -> ObjectKey:
        return ObjectKey("default", call.body.decode())

    async def call(self, name: str) -> int:
        async def read(_: int) -> bytes:
            return name.encode()

        (endpoint,) = self.manager.inbound
        return (await endpoint.handle("POST", headers={}, query={}, read=read)).status

    def clear(self) -> None:
        self.polled.clear()
        self.runs.clear()


async def test_each_replica_polls_its_own_objects_and_takes_over_those_of_another(world: World) -> None:
    answers: dict[str, str] = {}
    for name in NAMES:
        world.put(ConfigMap(metadata=ObjectMeta(name=name)))
    first, second = Replica(world, "first", answers), Replica(world, "second", answers)
    async with first.manager:
        async with second.manager:
            await world.advance(60)
            first.clear()
            second.clear()
            await world.advance(50)
            polls = Counter(first.polled) + Counter(second.polled)
            assert set(polls) == set(NAMES)
            assert max(polls.values()) <= 6
            assert set(first.polled).isdisjoint(second.polled)
            assert first.polled
            assert second.polled
            theirs = second.polled[0]
        first.clear()
        answers[theirs] = "changed while it was the other's"
        await world.advance(60)
        assert set(first.polled) == set(NAMES)
        assert f"{theirs}: changed while it was the other's" in first.runs


async def test_an_inbound_call_reaches_the_replica_that_reconciles_the_object(world: World) -> None:
    for name in NAMES:
        world.put(ConfigMap(metadata=ObjectMeta(name=name)))
    first, second = Replica(world, "first", {}), Replica(world, "second", {})
    async with first.manager, second.manager:
        await world.advance(60)
        first.clear()
        second.clear()
        for name in NAMES:
            assert sorted([await first.call(name), await second.call(name)]) == [202, 503]
        await world.settle()
        assert sorted([*first.runs, *second.runs]) == sorted(f"{name}: " for name in NAMES)


async def test_a_key_that_another_replica_takes_is_not_counted_as_failing(world: World) -> None:
    for name in NAMES:
        world.put(ConfigMap(metadata=ObjectMeta(name=name)))

    def failing(name: str) -> Manager:
        async def fail(_: Request[ConfigMap]) -> None:
            raise OSError(name)

        return world.manager(Controller(ConfigMap, fail), lease="op", shards=Shards(8), name=name, seed=len(name))

    def count(manager: Manager) -> float:
        return manager.metrics.value("kaito_runtime_failing_keys", controller="configmap")

    first, second = failing("first"), failing("second")
    async with first:
        await world.advance(60)
        assert count(first) == len(NAMES)
        async with second:
            await world.advance(300)
            assert count(first) + count(second) == len(NAMES)
            assert 0 < count(second) < len(NAMES)
