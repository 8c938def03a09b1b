"""What follows from each way a reconcile can end: queue, metrics, retries, deadlines."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kaito.runtime.clock import monotonic
from kaito.runtime.controller import Controller
from kaito.runtime.controller.outcome import DeadlineExceeded, Outcome
from kaito.runtime.errors import (
    ConfigurationError,
    Conflict,
    InvariantError,
    Terminal,
    TooManyRequests,
    TransportError,
    api_error,
)
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.manager import Manager
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.reconcile import Again, Request
from kaito.runtime.testing import World
from kaito.runtime.workqueue import Backoff

Behavior = Callable[[Request[ConfigMap]], Awaitable[Again | None]]


class Recorder:
    """A reconcile function whose behavior the test writes down run by run; the last one repeats."""

    def __init__(self, *behaviors: Behavior) -> None:
        self._behaviors = list(behaviors)
        self.requests: list[Request[ConfigMap]] = []
        self.times: list[float] = []

    async def __call__(self, request: Request[ConfigMap]) -> Again | None:
        behavior = self._behaviors[min(len(self.requests), len(self._behaviors) - 1)]
        self.requests.append(request)
        self.times.append(round(monotonic(), 3))
        return await behavior(request)


async def done(_: Request[ConfigMap]) -> Again | None:
    return None


def raising(error: Exception) -> Behavior:
    async def fail(_: Request[ConfigMap]) -> Again | None:
        raise error

    return fail


def answering(value: Any) -> Behavior:
    async def answer(_: Request[ConfigMap]) -> Any:
        return value

    return answer


def controller(recorder: Recorder, **options: Any) -> Controller[ConfigMap]:
    options.setdefault("backoff", Backoff(base=1, cap=60, jitter=False))
    return Controller(ConfigMap, recorder, name="c", **options)


def put(world: World, name: str = "a") -> None:
    world.put(ConfigMap(metadata=ObjectMeta(name=name)))


def results(manager: Manager) -> dict[str, float]:
    total = "controller_runtime_reconcile_total"
    named = {
        result: manager.metrics.value(total, controller="c", result=result)
        for result in ("success", "error", "requeue", "requeue_after")
    }
    return named | {
        short: manager.metrics.value(f"controller_runtime_{metric}_total", controller="c")
        for short, metric in {
            "errors": "reconcile_errors",
            "terminal": "terminal_reconcile_errors",
            "panics": "reconcile_panics",
            "timeouts": "reconcile_timeouts",
        }.items()
    }


NOTHING = dict.fromkeys(
    ("success", "error", "requeue", "requeue_after", "errors", "terminal", "panics", "timeouts"), 0.0
)


@pytest.mark.conformance(38)
async def test_done_forgets_and_counts_success(world: World) -> None:
    recorder = Recorder(done)
    put(world)
    async with world.manager(controller(recorder)) as manager:
        await world.advance(3600)
        assert len(recorder.requests) == 1
        assert results(manager) == NOTHING | {"success": 1.0}
        assert manager.metrics.value("kaito_runtime_last_success_timestamp_seconds", controller="c") > 0
        assert manager.metrics.value("controller_runtime_reconcile_time_seconds_count", controller="c") == 1


@pytest.mark.conformance(38)
async def test_again_forgets_failures_and_comes_back_in_time(world: World) -> None:
    recorder = Recorder(raising(ValueError("once")), answering(Again(30, "polling")), done)
    put(world)
    async with world.manager(controller(recorder)) as manager:
        await world.advance(100)
        assert recorder.times == [0, 1, 31]
        assert [request.attempt for request in recorder.requests] == [1, 2, 1]
        assert [str(cause) for cause in recorder.requests[2].causes] == ["again ConfigMap default/a (polling)"]
        assert results(manager) == NOTHING | {"error": 1.0, "errors": 1.0, "requeue_after": 1.0, "success": 1.0}


async def test_again_may_change_the_priority_of_the_next_run(world: World) -> None:
    recorder = Recorder(answering(Again(10, priority=7)), answering(Again(10)), answering(Again(10, priority=-5)), done)
    put(world)
    async with world.manager(controller(recorder)) as manager:
        levels: list[int] = []
        for _ in range(4):
            await asyncio.sleep(1)
            levels.extend(row.priority for row in manager.queues[0].dump())
            await asyncio.sleep(9)
            await world.settle()
    assert levels == [7, 7, -5]


@pytest.mark.conformance(38)
async def test_an_error_backs_off_for_ever_until_it_is_forgotten(world: World) -> None:
    recorder = Recorder(*[raising(OSError("cloud is down"))] * 5, done)
    put(world)
    async with world.manager(controller(recorder)) as manager:
        await world.advance(200)
        assert recorder.times == [0, 1, 3, 7, 15, 31]
        assert [request.attempt for request in recorder.requests] == [1, 2, 3, 4, 5, 6]
        assert recorder.requests[1].causes[0].note == "OSError: cloud is down"
        assert results(manager) == NOTHING | {"error": 5.0, "errors": 5.0, "success": 1.0}


@pytest.mark.conformance(38)
@pytest.mark.conformance(8)
async def test_terminal_is_not_retried_until_something_changes(world: World) -> None:
    recorder = Recorder(raising(ValueError()), raising(Terminal("spec must change first")), done)
    put(world)
    async with world.manager(controller(recorder)) as manager:
        await world.advance(3600)
        assert recorder.times == [0, 1]
        assert manager.queues[0].failures(recorder.requests[0].key) == 0
        world.patch(ConfigMap, "a", {"data": {"k": "v"}})
        await world.settle()
        assert len(recorder.requests) == 3
        assert recorder.requests[2].attempt == 1
        assert results(manager)["terminal"] == 1


@pytest.mark.conformance(38)
async def test_the_servers_retry_after_replaces_the_backoff(world: World) -> None:
    recorder = Recorder(raising(TooManyRequests("slow down", code=429, retry_after=17)), done)
    put(world)
    async with world.manager(controller(recorder)):
        await world.advance(60)
        assert recorder.times == [0, 17]
        assert recorder.requests[1].attempt == 2


@pytest.mark.conformance(38)
async def test_programming_errors_are_counted_apart_and_retried(world: World) -> None:
    recorder = Recorder(raising(KeyError("typo")), done)
    put(world)
    async with world.manager(controller(recorder)) as manager:
        await world.advance(60)
        assert results(manager) == NOTHING | {"error": 1.0, "errors": 1.0, "panics": 1.0, "success": 1.0}


@pytest.mark.conformance(38)
async def test_an_answer_that_means_nothing_is_an_error(world: World) -> None:
    recorder = Recorder(answering(5), done)
    put(world)
    async with world.manager(controller(recorder)) as manager:
        await world.advance(60)
        assert "returns None or Again" in recorder.requests[1].causes[0].note
        assert results(manager)["panics"] == 1


@pytest.mark.conformance(39)
async def test_the_deadline_cancels_a_sleeping_run_and_keeps_the_worker(world: World) -> None:
    cancelled: list[float] = []

    async def sleep(_: Request[ConfigMap]) -> Again | None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.append(monotonic())
            raise
        return None

    recorder = Recorder(sleep, done)
    put(world)
    async with world.manager(controller(recorder, deadline=20)) as manager:
        await world.advance(100)
        assert cancelled == [20]
        assert recorder.times == [0, 21]
        assert "20 s" in recorder.requests[1].causes[0].note
        assert results(manager) == NOTHING | {"error": 1.0, "errors": 1.0, "timeouts": 1.0, "success": 1.0}


@pytest.mark.conformance(39)
async def test_a_timeout_of_the_users_own_is_an_ordinary_error(world: World) -> None:
    async def own_timeout(_: Request[ConfigMap]) -> Again | None:
        async with asyncio.timeout(5):
            await asyncio.sleep(60)
        return None

    recorder = Recorder(own_timeout, done)
    put(world)
    async with world.manager(controller(recorder, deadline=20)) as manager:
        await world.advance(60)
        assert recorder.times == [0, 6]
        assert results(manager) == NOTHING | {"error": 1.0, "errors": 1.0, "success": 1.0}


async def test_awaiting_something_cancelled_does_not_lose_the_worker(world: World) -> None:
    async def await_cancelled(_: Request[ConfigMap]) -> Again | None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        await future
        return None

    recorder = Recorder(await_cancelled, done)
    put(world)
    async with world.manager(controller(recorder)) as manager:
        await world.advance(60)
        assert results(manager)["success"] == 1


@pytest.mark.conformance(40)
async def test_a_group_of_retryable_errors_waits_for_the_smallest_delay(world: World) -> None:
    def slow(seconds: float) -> TooManyRequests:
        return TooManyRequests("slow down", code=429, retry_after=seconds)

    recorder = Recorder(raising(ExceptionGroup("children", [slow(40), ExceptionGroup("nested", [slow(25)])])), done)
    put(world)
    async with world.manager(controller(recorder)):
        await world.advance(60)
        assert recorder.times == [0, 25]
        assert recorder.requests[1].causes[0].note == "TooManyRequests: slow down; TooManyRequests: slow down"


@pytest.mark.conformance(40)
@pytest.mark.parametrize(
    ("error", "terminal", "retry_after"),
    [
        (Terminal("no"), True, None),
        (ExceptionGroup("g", [Terminal("no")]), True, None),
        (ExceptionGroup("g", [Terminal("no"), OSError()]), False, None),
        (ExceptionGroup("g", [TooManyRequests("x", code=429, retry_after=9), OSError()]), False, None),
        (TooManyRequests("x", code=429, retry_after=9), False, 9),
        (api_error(503, {"details": {"retryAfterSeconds": 3}}), False, 3),
        (TransportError("refused"), False, None),
    ],
)
def test_what_an_error_means(error: Exception, terminal: bool, retry_after: float | None) -> None:
    outcome = Outcome.of_error(error)
    assert (outcome.result, outcome.terminal, outcome.retry_after) == ("error", terminal, retry_after)


def test_which_errors_need_a_stack_trace() -> None:
    conflict = Conflict("changed", code=409)
    assert Outcome.of_error(conflict).is_conflict
    assert Outcome.of_error(ExceptionGroup("g", [conflict])).is_expected
    assert not Outcome.of_error(ValueError()).is_expected
    assert not Outcome.of_error(ConfigurationError("a name is needed")).is_expected
    assert not Outcome.of_error(DeadlineExceeded()).is_expected
    assert Outcome.of_result(None) == Outcome("success")


async def test_a_deadline_tells_where_it_struck(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    async def waits_for_the_moon(_: Request[ConfigMap]) -> None:
        await asyncio.sleep(3600)

    async with world.manager(controller(Recorder(waits_for_the_moon), deadline=5)):
        world.put(ConfigMap(metadata=ObjectMeta(name="a")))
        await world.advance(6)
    line, *_rest = [line for line in capsys.readouterr().err.splitlines() if "reconcile failed" in line]
    assert "cancelled after 5 s" in line
    assert "in waits_for_the_moon" in line


@pytest.mark.conformance(41)
async def test_shutdown_inside_a_run_is_neither_an_error_nor_queued_again(world: World) -> None:
    interrupted: list[str] = []

    async def sleep(request: Request[ConfigMap]) -> Again | None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            interrupted.append(request.key.name)
            raise
        return None

    recorder = Recorder(sleep)
    put(world)
    async with world.manager(controller(recorder)) as manager:
        await asyncio.sleep(5)
        assert len(recorder.requests) == 1
    assert interrupted == ["a"]
    assert monotonic() == 5
    assert results(manager) == NOTHING
    assert manager.queues[0].dump() == []


async def test_a_fault_of_the_framework_stops_the_manager(world: World) -> None:
    recorder = Recorder(raising(InvariantError("impossible")))
    put(world)

    async def story() -> None:
        async with world.manager(controller(recorder)):
            await asyncio.sleep(60)

    with pytest.raises(InvariantError, match="impossible"):
        await story()


async def test_what_is_no_ordinary_exception_ends_the_program(world: World) -> None:
    class Fatal(BaseException):
        pass

    async def fatal(_: Request[ConfigMap]) -> Again | None:
        raise Fatal

    recorder = Recorder(fatal)
    put(world)

    async def story() -> None:
        async with world.manager(controller(recorder)):
            await asyncio.sleep(60)

    with pytest.raises(Fatal):
        await story()


@pytest.mark.conformance(8)
async def test_a_deleted_object_leaves_no_failures_behind(world: World) -> None:
    recorder = Recorder(raising(OSError("down")))
    put(world)
    async with world.manager(controller(recorder)) as manager:
        await world.advance(10)
        key = recorder.requests[0].key
        assert manager.queues[0].failures(key) == 4
        world.delete(ConfigMap, "a")
        await world.settle()
        assert manager.queues[0].failures(key) == 0
        runs = len(recorder.requests)
        await world.advance(3600)
        assert len(recorder.requests) == runs


async def test_the_priority_of_a_key_is_kept_over_retries(world: World) -> None:
    put(world)
    recorder = Recorder(raising(OSError("down")), done)
    async with world.manager(controller(recorder)) as manager:
        await world.settle()
        [row] = manager.queues[0].dump()
        assert (row.state, row.priority) == ("waiting", -100)


async def test_runs_of_one_object_keep_their_distance(world: World) -> None:
    recorder = Recorder(done)
    put(world)
    async with world.manager(controller(recorder, spacing=10)):
        await world.settle()
        for value in "xyz":
            world.patch(ConfigMap, "a", {"data": {"k": value}})
            await world.advance(1)
        await world.advance(30)
    assert recorder.times == [0, 10]
