"""Failures of a key: retries with a delay of their own, policies, limits of attempts, and reports."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import pytest

from kaito.runtime.client import ConditionUpdate
from kaito.runtime.clock import monotonic
from kaito.runtime.controller import Controller, Failure, FailurePolicy
from kaito.runtime.errors import ConfigurationError, Retry, ServerError, Terminal, api_error
from kaito.runtime.manager import Manager
from kaito.runtime.meta import Condition, Model, ObjectMeta, Resource
from kaito.runtime.reconcile import Again, KeyedRequest, PeriodicRequest, Request
from kaito.runtime.testing import World
from kaito.runtime.workqueue import Backoff

STEADY = Backoff(base=1, cap=64, jitter=False)


class JobSpec(Model):
    target: str = "a"


class JobStatus(Model):
    observed_generation: int = 0
    conditions: list[Condition] = []


class Task(Resource, api="example.com/v1", kind="Task"):
    spec: JobSpec = JobSpec()
    status: JobStatus = JobStatus()


class Script:
    """A reconcile function that raises (or returns) what the test gives it, and writes down when it ran."""

    def __init__(self, *results: Exception | Again | None) -> None:
        self.results: list[Exception | Again | None] = list(results)
        self.times: list[float] = []
        self.attempts: list[int] = []
        self.started = monotonic()

    async def __call__(self, request: Request[Task]) -> Again | None:
        result = self.results[min(len(self.times), len(self.results) - 1)]
        self.times.append(round(monotonic() - self.started, 3))
        self.attempts.append(request.attempt)
        if isinstance(result, Exception):
            raise result
        return result


class Reports:
    """A report function that writes down what it gets; the first `errors` are raised."""

    def __init__(self, *errors: Exception | Literal["hang"] | None) -> None:
        self.errors: list[Exception | Literal["hang"] | None] = list(errors)
        self.stages: list[str] = []
        self.failures: list[Failure] = []

    async def __call__(self, request: Request[Task], failure: Failure) -> None:
        self.stages.append(f"{failure.stage} {failure.attempts}")
        self.failures.append(failure)
        error = self.errors.pop(0) if self.errors else None
        if error == "hang":
            await asyncio.Event().wait()
        elif error is not None:
            raise error


def controller(script: Callable[[Request[Task]], Awaitable[Again | None]], **options: Any) -> Controller[Task]:
    options.setdefault("backoff", STEADY)
    return Controller(Task, script, name="c", **options)


def put(world: World, name: str = "a", target: str = "a") -> Task:
    return world.put(Task(metadata=ObjectMeta(name=name), spec=JobSpec(target=target)))


def gauges(manager: Manager) -> tuple[float, float]:
    return (
        manager.metrics.value("kaito_runtime_failing_keys", controller="c"),
        manager.metrics.value("kaito_runtime_given_up_keys", controller="c"),
    )


@pytest.mark.conformance("failures-1")
async def test_retry_has_a_delay_of_its_own_and_counts_as_a_failure(world: World) -> None:
    script = Script(Retry(20, "busy"), Retry(20, "busy"), OSError("broken"), None)
    async with world.manager(controller(script)) as manager:
        put(world)
        await world.settle()
        assert gauges(manager) == (1, 0)
        await world.advance(100)
        assert script.times == [0, 20, 40, 44]  # the third failure waits for the backoff of three failures
        assert script.attempts == [1, 2, 3, 4]
        assert manager.metrics.value("controller_runtime_reconcile_errors_total", controller="c") == 3
        assert gauges(manager) == (0, 0)


async def test_an_again_resets_what_a_retry_counts(world: World) -> None:
    script = Script(Retry(5), Again(5), Retry(5), None)
    async with world.manager(controller(script)):
        put(world)
        await world.advance(60)
    assert script.attempts == [1, 2, 1, 2]


async def test_an_event_is_not_delayed_by_a_retry(world: World) -> None:
    script = Script(Retry(1000), None)
    async with world.manager(controller(script)):
        put(world)
        await world.advance(10)
        put(world, target="b")
        await world.settle()
    assert script.times == [0, 10]


async def test_a_retry_in_a_group_counts_like_the_delay_of_a_server(world: World) -> None:
    throttled = api_error(429, "slow down", retry_after=30)
    script = Script(ExceptionGroup("two", [Retry(7), throttled]), ExceptionGroup("two", [Retry(7), OSError()]), None)
    async with world.manager(controller(script)):
        put(world)
        await world.advance(60)
    assert script.times == [0, 7, 9]


async def test_a_retried_key_keeps_its_priority(world: World) -> None:
    """Keys of the initial list stay behind changes when they are retried, in virtual time, too."""
    order: list[str] = []

    async def reconcile(request: Request[Task]) -> None:
        if request.attempt == 1 and request.key.name == "old":
            raise Retry(10)
        order.append(request.key.name)
        await asyncio.sleep(1)

    put(world, "old")
    async with world.manager(controller(reconcile, aging_step=None)):
        await world.settle()
        await asyncio.sleep(9.5)
        for name in ("new-1", "new-2"):
            put(world, name)
        await world.advance(30)
    assert order == ["new-1", "new-2", "old"]


@pytest.mark.parametrize("delay", [-1, float("inf"), float("nan")])
def test_a_retry_needs_a_delay(delay: float) -> None:
    with pytest.raises(ValueError, match=r"Retry\.after"):
        Retry(delay)


@pytest.mark.conformance("failures-2")
async def test_after_the_limit_of_attempts_only_changes_trigger_one_attempt_each(world: World) -> None:
    script = Script(OSError("x"))
    async with world.manager(controller(script, attempts=3)) as manager:
        put(world)
        await world.advance(3600)
        assert script.times == [0, 1, 3]
        assert gauges(manager) == (1, 1)
        assert manager.metrics.value("controller_runtime_terminal_reconcile_errors_total", controller="c") == 1
        world.patch(Task, "a", {"metadata": {"labels": {"x": "y"}}})  # not a new generation
        await world.advance(3600)
        assert len(script.times) == 4
        put(world, target="b")  # a new generation: a new count
        await world.advance(3600)
        assert len(script.times) == 7
        script.results = [None]
        world.patch(Task, "a", {"metadata": {"labels": {"x": "z"}}})
        await world.settle()
        assert gauges(manager) == (0, 0)


@pytest.mark.conformance("failures-2")
async def test_policies_follow_the_most_specific_class(world: World) -> None:
    policies = {
        OSError: FailurePolicy(backoff=Backoff(base=10, cap=100, jitter=False)),
        ConnectionError: FailurePolicy(retry=False),
        TimeoutError: FailurePolicy(attempts=2),
    }
    script = Script(OSError(), OSError(), ConnectionResetError())
    async with world.manager(controller(script, on_error=policies)) as manager:
        put(world)
        await world.advance(3600)
        assert script.times == [0, 10, 30]
        assert gauges(manager) == (1, 1)
    world = World(seed=2)
    script = Script(TimeoutError())
    async with world.manager(controller(script, on_error=policies)):
        put(world)
        await world.advance(3600)
    assert script.times == [0, 1]


async def test_the_delay_of_an_error_precedes_its_policy(world: World) -> None:
    policies = {ServerError: FailurePolicy(backoff=Backoff(base=100, cap=100, jitter=False))}
    script = Script(api_error(503, "x", retry_after=5), api_error(503, "x"), None)
    async with world.manager(controller(script, on_error=policies)):
        put(world)
        await world.advance(3600)
    assert script.times == [0, 5, 105]


@pytest.mark.conformance("failures-3")
async def test_each_stage_is_reported_once(world: World) -> None:
    script, reports = Script(*[OSError(f"no {n}") for n in range(6)], None), Reports()
    async with world.manager(controller(script).reports_failures(reports, after=3)) as manager:
        put(world)
        await world.advance(3)
        assert reports.stages == ["failing 3"]
        (failure,) = reports.failures
        assert failure.retry_in == 4
        assert failure.message == "OSError: no 2"
        assert isinstance(failure.error, OSError)
        assert failure.since == world.now.replace(second=0, microsecond=0)
        await world.advance(3600)
        assert reports.stages == ["failing 3", "recovered 6"]
        assert reports.failures[1].recovered
        assert reports.failures[1].message == "OSError: no 5"
        assert gauges(manager) == (0, 0)
        put(world, target="b")
        await world.settle()
        assert len(reports.stages) == 2


async def test_short_failures_are_not_reported(world: World) -> None:
    script, reports = Script(OSError(), OSError(), None), Reports()
    async with world.manager(controller(script).reports_failures(reports, after=3)):
        put(world)
        await world.advance(3600)
    assert reports.stages == []


@pytest.mark.parametrize("error", [Terminal("never"), ExceptionGroup("g", [Terminal("never")])])
async def test_giving_up_is_reported_at_once(world: World, error: Exception) -> None:
    script, reports = Script(error), Reports()
    async with world.manager(controller(script).reports_failures(reports)):
        put(world)
        await world.advance(3600)
        assert reports.stages == ["given up 1"]
        put(world, target="b")
        await world.advance(3600)
        assert reports.stages == ["given up 1"]
        script.results = [None]
        put(world, target="c")
        await world.advance(3600)
    assert reports.stages == ["given up 1", "recovered 2"]


@pytest.mark.conformance("failures-3")
async def test_a_status_written_by_the_report_neither_loops_nor_wakes_what_was_given_up(world: World) -> None:
    script = Script(OSError("no answer"))

    async def report(request: Request[Task], failure: Failure) -> None:
        async with request.status() as status:
            reason = {"failing": "Failing", "given up": "GivenUp", "recovered": "Reconciled"}[failure.stage]
            status.set_condition(ConditionUpdate("Ready", "True" if failure.recovered else "False", reason))

    async with world.manager(controller(script, attempts=5).reports_failures(report, after=2)):
        put(world)
        await world.advance(3600)
        assert world.condition(Task, "a", "Ready").reason == "GivenUp"
        # one more attempt for each of the two writes of the status: no predicate hides them
        assert len(script.times) == 6
        script.results = [None]
        put(world, target="b")
        await world.advance(3600)
        assert world.condition(Task, "a", "Ready").reason == "Reconciled"


@pytest.mark.conformance("failures-4")
async def test_a_report_that_raises_changes_nothing_and_is_repeated(world: World) -> None:
    script = Script(OSError(), OSError(), OSError(), None)
    reports = Reports(RuntimeError("status not written"), None, LookupError("again"), None)
    async with world.manager(controller(script).reports_failures(reports, after=2)) as manager:
        put(world)
        await world.advance(3600)
        assert script.times[:4] == [0, 1, 3, 7]
        # the recovery is repeated in another attempt, because nothing else would trigger one
        assert reports.stages == ["failing 2", "failing 3", "recovered 3", "recovered 3"]
        assert manager.metrics.value("kaito_runtime_failure_report_errors_total", controller="c") == 2
        assert gauges(manager) == (0, 0)
        assert len(script.times) == 5


@pytest.mark.conformance("failures-4")
async def test_a_report_that_hangs_is_ended_and_the_worker_goes_on(world: World) -> None:
    script, reports = Script(OSError()), Reports("hang")
    async with world.manager(controller(script, attempts=1).reports_failures(reports)) as manager:
        put(world)
        await world.advance(29)
        assert len(script.times) == 1
        await world.advance(3600)
        assert reports.stages == ["given up 1", "given up 2"]
        assert manager.metrics.value("kaito_runtime_failure_report_errors_total", controller="c") == 1


async def test_a_stop_during_a_report_is_a_clean_stop(world: World) -> None:
    reports = Reports("hang")
    async with world.manager(controller(Script(OSError())).reports_failures(reports, after=1)):
        put(world)
        await asyncio.sleep(1)
        assert reports.stages == ["failing 1"]


async def test_a_deleted_object_is_not_reported_and_leaves_nothing(world: World) -> None:
    script, reports = Script(OSError()), Reports()
    async with world.manager(controller(script).reports_failures(reports, after=3)) as manager:
        put(world)
        await world.advance(1.5)
        world.delete(Task, "a")
        await world.advance(3600)
        assert gauges(manager) == (0, 0)
        assert reports.stages == []


async def test_a_failing_clean_up_is_reported(world: World) -> None:
    script, reports = Script(OSError("provider")), Reports()
    declared = controller(Script(None)).finalizes("example.com/x", script).reports_failures(reports, after=2)
    async with world.manager(declared):
        put(world)
        await world.settle()
        world.delete(Task, "a")
        await world.advance(10)
        assert reports.stages == ["failing 2"]
        script.results = [None]
        await world.advance(60)
        assert world.find(Task, "a") is None


async def test_a_keyed_controller_reports_with_its_request(world: World) -> None:
    seen: list[str] = []

    async def fail(request: KeyedRequest[str]) -> None:
        raise OSError(request.key)

    async def report(request: KeyedRequest[str], failure: Failure) -> None:
        seen.append(f"{request.key}: {failure.stage} {failure.message}")

    declared = Controller.keyed(str, fail, name="k", attempts=2, backoff=STEADY)
    declared.watches(Task, to=lambda obj, _: obj.name).reports_failures(report, after=1)
    async with world.manager(declared):
        put(world)
        await world.advance(60)
    assert seen == ["a: failing OSError: a", "a: given up OSError: a"]


async def test_a_removed_controller_leaves_no_failing_keys_in_the_gauges(world: World) -> None:
    async with world.manager(controller(Script(OSError()), attempts=1)) as manager:
        put(world)
        await world.settle()
        assert gauges(manager) == (1, 1)
        await manager.remove("c")
        assert gauges(manager) == (0, 0)


async def test_a_periodic_controller_runs_again_after_a_terminal_error(world: World) -> None:
    """Nothing else would ever trigger it."""
    moments: list[float] = []

    async def tick(_: PeriodicRequest) -> None:
        moments.append(round(monotonic()))
        message = "no such table"
        raise Terminal(message)

    async with world.manager(Controller.every(60, tick, name="c")) as manager:
        await world.advance(130)
        assert [moment - moments[0] for moment in moments] == [0, 60, 120]
        assert manager.metrics.value("controller_runtime_terminal_reconcile_errors_total", controller="c") == 3
        assert gauges(manager) == (1, 1)


async def no_report(request: Request[Task], failure: Failure) -> None: ...


async def one_argument(request: Request[Task]) -> None: ...


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: controller(Script(None), attempts=0), "attempts=0: at least 1"),
        (lambda: controller(Script(None), on_error=[OSError]), "on_error=.*write on_error="),
        (lambda: controller(Script(None), on_error={42: FailurePolicy()}), "42 is not a class of exceptions"),
        (lambda: controller(Script(None), on_error={OSError: 5}), r"on_error\[OSError\]=5: write FailurePolicy"),
        (lambda: FailurePolicy(retry=False, attempts=3), "has no further attempts"),
        (lambda: FailurePolicy(attempts=True), "attempts=True"),
        (lambda: controller(Script(None)).reports_failures(one_argument), "request, failure"),  # type: ignore[arg-type]
        (lambda: controller(Script(None)).reports_failures(print), "not an async function"),  # type: ignore[arg-type]
        (lambda: controller(Script(None)).reports_failures(no_report, after=0), "after=0"),
        (
            lambda: controller(Script(None)).reports_failures(no_report).reports_failures(no_report),
            "there is a function already",
        ),
    ],
)
async def test_wrong_declarations_are_refused(declare: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        declare()
