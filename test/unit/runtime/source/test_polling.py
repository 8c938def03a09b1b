"""Polled values: pace, cache, bounds, and what triggers a reconcile."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from kaito.runtime.clock import monotonic
from kaito.runtime.controller import Controller, Failure
from kaito.runtime.errors import ConfigurationError, Retry
from kaito.runtime.kinds import ConfigMap, Secret
from kaito.runtime.meta import Model, ObjectMeta, Resource
from kaito.runtime.reconcile import Request
from kaito.runtime.source import Polled, Polling, PollRequest
from kaito.runtime.testing import World
from kaito.runtime.workqueue import Backoff

STEADY = Backoff(base=1, cap=64, jitter=False)


class RecordSpec(Model):
    host: str = "www"
    every: float = 60


class Record(Resource, api="example.com/v1", kind="Record"):
    spec: RecordSpec = RecordSpec()


@dataclass
class Provider:
    """A provider whose answers the test changes."""

    answers: dict[str, Any] = field(default_factory=dict[str, Any])
    seconds: float = 0.0
    polls: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])
    running: int = 0
    most: int = 0
    cancelled: int = 0

    async def read(self, request: PollRequest[Record]) -> str | None:
        self.polls.append((round(monotonic(), 1), request.object.spec.host))
        self.running += 1
        self.most = max(self.most, self.running)
        answer = self.answers.get(request.object.spec.host)
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        if isinstance(answer, Exception):
            raise answer
        return answer


def pace(record: Record) -> float | None:
    return record.spec.every or None


def broken_pace(_: Record) -> float:
    message = "pace"
    raise ZeroDivisionError(message)


def polling(provider: Provider, **options: Any) -> Polling[Record, str | None]:
    options.setdefault("backoff", STEADY)
    return Polling(Record, provider.read, **options)


class Seen:
    """A reconcile function that writes down the polled value."""

    def __init__(self, source: Polling[Record, str | None]) -> None:
        self.source = source
        self.values: list[str] = []
        self.last: Polled[str | None] | None = None

    async def __call__(self, request: Request[Record]) -> None:
        polled = self.last = self.source.of(request)
        self.values.append(str(polled.value) if polled.known else "unknown")


def put(world: World, name: str = "a", **spec: Any) -> Record:
    return world.put(Record(metadata=ObjectMeta(name=name), spec=RecordSpec(**spec)))


@pytest.mark.conformance("polling-1")
async def test_only_a_change_of_the_value_triggers_a_reconcile(world: World) -> None:
    provider = Provider({"www": "192.0.2.1"})
    source = polling(provider)
    seen = Seen(source)
    async with world.manager(Controller(Record, seen).receives(source)) as manager:
        put(world)
        await world.settle()
        assert seen.values in (["unknown", "192.0.2.1"], ["192.0.2.1"])
        seen.values.clear()
        await world.advance(600)
        assert len(provider.polls) in range(10, 13)
        assert seen.values == []
        provider.answers["www"] = "192.0.2.2"
        await world.advance(70)
        assert seen.values == ["192.0.2.2"]
        provider.answers["www"] = None  # "does not exist" is a value, too
        await world.advance(70)
        assert seen.values == ["192.0.2.2", "None"]
        total = "kaito_runtime_polls_total"
        labels = {"controller": "record", "polling": "read"}
        assert manager.metrics.value(total, **labels, result="changed") == 3
        assert manager.metrics.value(total, **labels, result="error") == 0
    assert [str(cause) for run in world.reconciles() for cause in run.causes][-1] == "poll Record default/a (read)"


async def test_each_object_has_its_own_pace_and_none_is_not_polled(world: World) -> None:
    provider = Provider()
    source = polling(provider, every=pace)
    async with world.manager(Controller(Record, Seen(source)).receives(source)):
        put(world, "fast", host="fast", every=10)
        put(world, "slow", host="slow", every=100)
        put(world, "off", host="off", every=0)
        await world.advance(200)
        hosts = [host for _, host in provider.polls]
        assert hosts.count("fast") in range(18, 24)
        assert hosts.count("slow") in range(2, 4)
        assert hosts.count("off") == 0
        put(world, "off", host="off", every=10)
        await world.advance(15)
        assert [host for _, host in provider.polls].count("off") in (2, 3)


@pytest.mark.conformance("polling-2")
async def test_polls_are_bounded_and_one_object_is_never_polled_twice_at_once(world: World) -> None:
    provider = Provider(seconds=1)
    source = polling(provider, concurrency=3, every=5)
    async with world.manager(Controller(Record, Seen(source)).receives(source)):
        for number in range(9):
            put(world, f"r{number}", host=f"h{number}")
        await world.settle()
        assert provider.most == 3
        first_round = provider.polls[:9]
        assert len({host for _, host in first_round}) == 9
        assert first_round[-1][0] - first_round[0][0] == 2


@pytest.mark.conformance("polling-3")
async def test_a_poll_that_hangs_is_ended_and_the_others_go_on(world: World) -> None:
    provider = Provider(seconds=3600)
    source = polling(provider, timeout=5, concurrency=1)
    seen = Seen(source)
    async with world.manager(Controller(Record, seen).receives(source)) as manager:
        put(world, "a", host="a")
        await world.advance(20)
        assert seen.last is not None
        error = seen.last.error
        assert isinstance(error, TimeoutError)
        assert str(error) == "no result within 5 s"
        assert provider.cancelled == seen.last.failures == 3  # at 0, 6 and 13 seconds
        provider.seconds = 0
        provider.answers = {"a": "1", "b": "2"}
        put(world, "b", host="b")
        await world.advance(30)
        assert set(seen.values) == {"unknown", "1", "2"}
        assert seen.last.error is None
        assert manager.healthz.report(verbose=True).status == 200


@pytest.mark.conformance("polling-3")
async def test_the_result_of_a_poll_for_an_object_deleted_meanwhile_is_discarded(world: World) -> None:
    provider = Provider({"www": "old"}, seconds=5)
    source = polling(provider)
    seen = Seen(source)
    async with world.manager(Controller(Record, seen).receives(source)):
        put(world)
        await asyncio.sleep(1)
        world.delete(Record, "a")
        await asyncio.sleep(1)
        provider.answers["www"] = "new"
        provider.seconds = 8
        put(world)  # another object of the same name
        await asyncio.sleep(5)  # the first poll has ended
        assert seen.values == ["unknown"] * len(seen.values)
        await world.advance(60)
        assert seen.values[-1] == "new"
        assert "old" not in seen.values
        world.delete(Record, "a")
        await world.settle()
        count = len(provider.polls)
        await world.advance(600)
        assert len(provider.polls) == count


async def test_a_new_generation_drops_the_value_and_is_polled_at_once(world: World) -> None:
    provider = Provider({"www": "1", "mail": "2"}, seconds=1)
    source = polling(provider, every=1000)
    seen = Seen(source)
    async with world.manager(Controller(Record, seen).receives(source)):
        put(world)
        await world.settle()
        put(world, host="mail")
        await world.settle()
        assert seen.values == ["unknown", "1", "unknown", "2"]
        world.patch(Record, "a", {"metadata": {"labels": {"x": "y"}}})  # the same generation
        await world.settle()
        assert seen.values[-1] == "2"
        assert len(provider.polls) == 2


@pytest.mark.conformance("polling-4")
async def test_failures_keep_the_value_back_off_and_are_reported_if_wanted(world: World) -> None:
    provider = Provider({"www": "1"})
    source = polling(provider, every=10, error_after=3)
    seen = Seen(source)
    async with world.manager(Controller(Record, seen).receives(source)):
        put(world)
        await world.settle()
        seen.values.clear()
        provider.answers["www"] = OSError("flapping")
        await world.advance(11)
        assert seen.values == []
        await world.advance(200)  # 1, 2, 4, 8 ... seconds between the polls
        assert seen.values == ["1"]  # once: three polls have failed
        assert seen.last is not None
        assert (seen.last.value, seen.last.known, str(seen.last.error)) == ("1", True, "flapping")
        provider.answers["www"] = "1"
        await world.advance(64)
        assert seen.values == ["1", "1"]  # the same value, and no error any more
        assert seen.last.error is None
        assert seen.last.failures == 0


async def test_set_and_refresh_after_a_write(world: World) -> None:
    """The cache shows what this process has written; a poll that began before the write cannot undo it."""
    provider = Provider({"www": "old"}, seconds=2)
    source = polling(provider, every=10)
    values: list[str | None] = []

    async def reconcile(request: Request[Record]) -> None:
        polled = source.of(request)
        values.append(polled.value)
        if polled.value == "old":
            await asyncio.sleep(9)  # the next poll is in progress
            provider.answers["www"] = "new"
            polled.set("new")
            assert polled.at == request.clock.now()

    async with world.manager(Controller(Record, reconcile).receives(source)):
        put(world)
        await world.advance(60)
        assert values == [None, "old"]
        provider.answers["www"] = "newer"
        await world.advance(13)
        assert values == [None, "old", "newer"]


async def test_a_refresh_polls_at_once(world: World) -> None:
    provider = Provider({"www": "1"})
    source = polling(provider, every=1000)
    seen = Seen(source)
    async with world.manager(Controller(Record, seen).receives(source)):
        put(world)
        await world.settle()
        provider.answers["www"] = "2"
        assert seen.last is not None
        seen.last.refresh()
        await world.settle()
        assert seen.values[-1] == "2"


@pytest.mark.conformance("polling-2")
async def test_only_the_leader_polls_and_a_failing_provider_delays_no_start(world: World) -> None:
    provider = Provider({"www": OSError("down")})
    source = polling(provider, every=10)
    put(world)
    async with world.manager(Controller(Record, Seen(source)).receives(source), lease="op", name="one") as first:
        await first.wait_elected()
        await world.settle()
        count = len(provider.polls)
        assert count == 1
        other = Provider()
        standby = polling(other)
        async with world.manager(Controller(Record, Seen(standby)).receives(standby), lease="op", name="two") as second:
            await world.advance(5)
            assert not second.is_leader
            assert second.readyz.report().status == 200
            assert other.polls == []


async def test_one_declaration_serves_several_managers(world: World) -> None:
    provider = Provider({"www": "1"})
    source = polling(provider)
    seen = Seen(source)
    controller = Controller(Record, seen).receives(source)
    async with world.manager(controller):
        put(world)
        await world.settle()
    seen.values.clear()
    provider.answers["www"] = "2"
    async with world.manager(controller):
        await world.settle()
    assert seen.values[-1] == "2"
    assert "1" not in seen.values


async def test_polls_read_the_cache_and_failure_reports_see_values(world: World) -> None:
    tokens: list[str] = []
    reported: list[str | None] = []

    async def read(request: PollRequest[Record]) -> str:
        tokens.append(str(request.view.get(Secret, "token", request.key.namespace).value("t")))
        return "1"

    source: Polling[Record, str] = Polling(Record, read)

    async def fail(_: Request[Record]) -> None:
        raise Retry(5)

    async def report(request: Request[Record], _: Failure) -> None:
        reported.append(source.of(request).value)

    controller = Controller(Record, fail).receives(source).reports_failures(report)
    world.put(Secret(metadata=ObjectMeta(name="token")).with_values(t=b"secret"))
    async with world.manager(controller.watches(Secret, to=lambda _, __: None)):
        put(world)
        await world.advance(30)
    assert tokens == ["b'secret'"]
    assert reported == ["1"]


async def test_a_function_of_the_pace_that_raises_is_a_failed_poll(world: World) -> None:
    provider = Provider()
    source = polling(provider, every=broken_pace)
    seen = Seen(source)
    async with world.manager(Controller(Record, seen).receives(source)):
        put(world)
        await world.advance(10)
        assert seen.last is not None
        assert isinstance(seen.last.error, ZeroDivisionError)


async def test_a_poll_that_ignores_its_cancellation_fails_the_liveness_probe(world: World) -> None:
    provider = Provider()
    over = asyncio.Event()

    async def stubborn(_: PollRequest[Record]) -> None:
        while not over.is_set():
            with suppress(asyncio.CancelledError):
                await over.wait()

    source: Polling[Record, None] = Polling(Record, stubborn, timeout=5, concurrency=1)
    async with world.manager(Controller(Record, Seen(polling(provider))).receives(source)) as manager:
        put(world)
        await asyncio.sleep(9)
        assert manager.healthz.report().status == 200
        await asyncio.sleep(2)
        assert "poll stubborn of default/a for 11 s" in manager.healthz.report().text
        over.set()
        await world.settle()
        assert manager.healthz.report().status == 200


async def test_a_retry_of_a_poll_has_its_delay(world: World) -> None:
    provider = Provider({"www": Retry(500, "rate limit")})
    source = polling(provider, every=10)
    async with world.manager(Controller(Record, Seen(source)).receives(source)):
        put(world)
        await world.advance(1100)
    assert [moment for moment, _ in provider.polls] == [0, 500, 1000]


async def test_a_poll_that_awaits_something_cancelled_is_a_failed_poll(world: World) -> None:
    provider = Provider({"www": None})
    source = polling(provider)
    seen = Seen(source)

    async def cancel(_: PollRequest[Record]) -> str | None:
        raise asyncio.CancelledError

    source.poll = cancel
    async with world.manager(Controller(Record, seen).receives(source)):
        put(world)
        await world.advance(10)
        assert seen.last is not None
        assert "awaited something that was cancelled" in str(seen.last.error)
        assert seen.last.failures == 4


async def test_errors_of_polls_keep_no_frames_in_memory(world: World) -> None:
    async def fail(_: PollRequest[Record]) -> str | None:
        try:
            message = "inner"
            raise LookupError(message)
        except LookupError as error:
            message = "outer"
            raise OSError(message) from error

    source: Polling[Record, str | None] = Polling(Record, fail)
    seen = Seen(source)
    async with world.manager(Controller(Record, seen).receives(source)):
        put(world)
        await world.settle()
        assert seen.last is not None
        error = seen.last.error
        assert isinstance(error, OSError)
        assert error.__traceback__ is None
        assert error.__cause__ is not None
        assert error.__cause__.__traceback__ is None


async def test_a_unit_test_gives_a_request_its_values(world: World) -> None:
    source = polling(Provider())
    seen = Seen(source)
    async with world.manager() as manager:
        record, other = put(world), put(world, "b")
        for each in (record, other):
            await seen(
                Request(
                    key=each.key, object=each, api=manager.api, source_state=source.fixed({record.key: "192.0.2.1"})
                )
            )
    assert seen.values == ["192.0.2.1", "unknown"]


def not_async(_: PollRequest[Record]) -> Any:
    return None


async def nothing(_: Request[Record]) -> None: ...


async def other(_: PollRequest[ConfigMap]) -> None: ...


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: polling(Provider(), every=0), "every=0"),
        (lambda: Polling(Record, not_async), "is not an async function"),
        (lambda: polling(Provider(), timeout=-1), "timeout=-1"),
        (lambda: polling(Provider(), concurrency=0), "concurrency=0"),
        (lambda: Controller(Record, nothing).receives(Polling(ConfigMap, other)), "polls another kind"),  # type: ignore[arg-type]
        (
            lambda: Controller(Record, nothing).receives(polling(Provider())).receives(polling(Provider())),
            "two pollings named 'read'",
        ),
    ],
)
def test_wrong_declarations_are_refused(declare: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        declare()


async def test_a_polling_that_is_no_source_is_refused_by_name(world: World) -> None:
    source = polling(Provider())
    errors: list[str] = []

    async def reconcile(request: Request[Record]) -> None:
        with pytest.raises(ConfigurationError) as caught:
            source.of(request)
        errors.append(str(caught.value))

    async with world.manager(Controller(Record, reconcile)):
        put(world)
        await world.settle()
    assert errors == ["polling read is not a source of this controller: add .receives() with it"]
