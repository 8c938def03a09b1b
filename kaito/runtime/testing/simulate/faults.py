"""Faults that every operator meets: crashes, suspended leaders, cut networks, failing requests, lagging watches."""

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from kaito.apiserver import Fault
from kaito.runtime.testing.simulate.machine_faults import machine_faults
from kaito.runtime.testing.simulate.network import MODES, Failures
from kaito.runtime.testing.simulate.process import START_SECONDS, Operator
from kaito.runtime.testing.simulate.steps import Arguments, StepKind

if TYPE_CHECKING:
    from kaito.runtime.testing.simulate.run import Run

DOWN_SECONDS: Final = (0.0, 5.0, 30.0, 120.0)
SUSPENDED_SECONDS: Final = (1.0, 15.0, 60.0, 105.0, 150.0, 300.0)
"""Some are longer than a lease: another replica leads when the process continues."""


def common_faults(operators: Sequence[Operator], kinds: Sequence[str] = ()) -> list[StepKind]:
    """Returns the kinds of faults that do not depend on what the operators do.

    Args:
        operators: the operators.
        kinds: kinds of objects whose watches lag behind those of the others.
    """
    processes = [name for each in operators for name in each.processes]
    names = [*processes, *(each.name for each in operators)]

    def crash(rng: random.Random) -> Arguments:
        writes = rng.choice((0, 0, 1, 1, 2, 3, 5, 8))
        return {"process": rng.choice(processes), "writes": writes, "down": rng.choice(DOWN_SECONDS)}

    def process(rng: random.Random) -> Arguments:
        return {"process": rng.choice(processes)}

    def suspension(rng: random.Random) -> Arguments:
        return {"process": rng.choice(processes), "seconds": rng.choice(SUSPENDED_SECONDS)}

    def suspended(rng: random.Random) -> Arguments:
        return {**suspension(rng), "steps": rng.choice((0, 0, 0, 1, 2, 4))}

    def requests(rng: random.Random) -> Arguments:
        return {
            "mode": rng.choice(MODES),
            "process": rng.choice(["", *names]),
            "probability": rng.choice((0.1, 0.3, 0.7, 1.0)),
            "seconds": rng.choice((5.0, 20.0, 60.0, 180.0)),
            "writes": rng.random() < 0.5,
            "draw": rng.randrange(10**6),
        }

    return [
        StepKind(
            name="crash",
            apply=_crash,
            draw=crash,
            weight=3,
            is_fault=True,
            text="{process} crashes after {writes} more writes, and is down for {down} s",
        ),
        StepKind(name="stop", apply=_stop, draw=process, is_fault=True, text="{process} is stopped in order"),
        StepKind(
            name="suspend",
            apply=_suspend,
            draw=suspended,
            weight=2,
            is_fault=True,
            text="{process} is suspended for {seconds} s, after {steps} more steps",
        ),
        StepKind(
            name="cut-network",
            apply=_cut,
            draw=suspension,
            weight=2,
            is_fault=True,
            text="{process} cannot reach the API server for {seconds} s",
        ),
        StepKind(
            name="fail-requests",
            apply=_fail_requests,
            draw=requests,
            weight=4,
            is_fault=True,
            text="requests fail ({mode}, probability {probability}, process '{process}', writes only: {writes}) for "
            "{seconds} s",
        ),
        *_watch_faults(kinds),
        *machine_faults(processes),
    ]


def _watch_faults(kinds: Sequence[str]) -> list[StepKind]:
    def lag(rng: random.Random) -> Arguments:
        delay, seconds = rng.choice((0.5, 3.0, 20.0, 60.0)), rng.choice((10.0, 60.0, 300.0))
        return {"delay": delay, "seconds": seconds, "kind": rng.choice(("", "", *kinds))}

    return [
        StepKind(name="cut-watches", apply=_cut_watches, is_fault=True, text="the API server ends all watches"),
        StepKind(
            name="expire-history",
            apply=_expire_history,
            is_fault=True,
            text="the API server forgets the history and ends all watches: clients list again",
        ),
        StepKind(
            name="lag-watches",
            apply=_lag,
            draw=lag,
            weight=2,
            is_fault=True,
            text="watch events of kind '{kind}' arrive {delay} s late for {seconds} s",
        ),
    ]


async def _crash(run: "Run", *, process: str, writes: int, down: float) -> None:
    target = run.processes[process]
    if writes:
        target.crash_after(writes, down)
        run.fault_lasts(60.0 + down)
    else:
        target.crash(down)
        run.fault_lasts(down + START_SECONDS)


async def _stop(run: "Run", *, process: str) -> None:
    run.processes[process].stop()
    run.fault_lasts(20.0)


async def _suspend(run: "Run", *, process: str, seconds: float, steps: int = 0) -> None:
    target = run.processes[process]
    if steps:
        target.suspend_after(steps, seconds)
        run.fault_lasts(60.0)
        return
    target.suspend()
    run.end_after(seconds, target.resume)


async def _cut(run: "Run", *, process: str, seconds: float) -> None:
    target = run.processes[process]
    if target.is_cut:
        return
    target.is_cut = True
    if target.connection is not None:
        target.connection.reset()

    def heal() -> None:
        target.is_cut = False

    run.end_after(seconds, heal)


async def _fail_requests(
    run: "Run", *, mode: Any, process: str, probability: float, seconds: float, writes: bool, draw: int
) -> None:
    failures = Failures(mode, probability, random.Random(draw), process, writes)  # noqa: S311 - repeatable
    run.failures.append(failures)
    run.end_after(seconds, lambda: run.failures.remove(failures))


async def _cut_watches(run: "Run") -> None:
    run.world.cut_watches()
    run.fault_lasts(10.0)


async def _expire_history(run: "Run") -> None:
    run.world.compact_history()
    run.world.cut_watches()
    run.fault_lasts(10.0)


async def _lag(run: "Run", *, delay: float, seconds: float, kind: str = "") -> None:
    fault = run.world.server.inject(Fault(kind=kind, times=None, lag=delay))
    run.end_after(seconds, lambda: run.world.heal(fault))
