"""Runs the seeds of a campaign, in this process or in several.

`results_of` yields the results in the order of the seeds, whichever process ends first. Processes are forked after a
first run: they share what it has imported and built, and each runs many seeds.
"""

import gc
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import astuple, dataclass
from typing import Final, Self, final

from kaito.runtime.testing.simulate import Report, describe, minimize, pytest_case
from kaito.runtime.testing.simulate.steps import Scenario

AHEAD: Final = 4
"""Seeds that wait for each process, so that none waits for a slow seed of another one."""

Run = Callable[[Scenario | int], Report]


@final
@dataclass(frozen=True, slots=True)
class Counts:
    """What happened in a run, or the sums of several."""

    seconds: float = 0.0
    """Virtual time."""
    actions: int = 0
    faults: int = 0
    requests: int = 0
    reconciles: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


@final
@dataclass(frozen=True, slots=True)
class SeedResult:
    """What a campaign keeps of a run."""

    seed: int
    counts: Counts
    invariant: str = ""
    """Name of the violated invariant; empty if the run violates none."""
    violation: str = ""
    """The violation with the names of the objects."""
    description: str = ""
    """What has happened, and a test, of a violation that was minimized."""

    @classmethod
    def of(cls, report: Report, description: str = "") -> Self:
        """Returns the result of a report."""
        violation = report.violation
        return cls(
            seed=report.scenario.seed,
            counts=Counts(
                seconds=report.seconds,
                actions=len(report.scenario.steps) - report.faults,
                faults=report.faults,
                requests=report.trace.requests,
                reconciles=report.reconciles,
            ),
            invariant="" if violation is None else violation.invariant,
            violation="" if violation is None else str(violation),
            description=description,
        )


def results_of(seeds: Sequence[int], run: Run, *, jobs: int = 1, minimizes: bool = False) -> Iterator[SeedResult]:
    """Runs the seeds.

    Args:
        seeds: the seeds.
        run: runs a seed, or a scenario with fewer steps; it must be picklable if there are several jobs.
        jobs: number of processes; with one, this process runs the seeds.
        minimizes: whether a seed that violates an invariant is run with fewer steps, and described.
    """
    if not seeds:
        return
    yield _result(seeds[0], run, minimizes)
    _freeze()
    rest = seeds[1:]
    if jobs <= 1 or len(rest) <= 1:
        for seed in rest:
            yield _result(seed, run, minimizes)
        return
    with ProcessPoolExecutor(min(jobs, len(rest)), multiprocessing.get_context("fork")) as pool:
        running: deque[Future[SeedResult]] = deque()
        try:
            for seed in rest:
                if len(running) >= jobs * AHEAD:
                    yield running.popleft().result()
                running.append(pool.submit(_result, seed, run, minimizes))
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()


def _result(seed: int, run: Run, minimizes: bool) -> SeedResult:
    report = run(seed)
    if report.violation is None or not minimizes:
        return SeedResult.of(report)
    _, fewest = minimize(report, run)
    return SeedResult.of(report, f"{describe(fewest)}\n{pytest_case(fewest, 'KaitoSimulation')}")


def _freeze() -> None:
    """Leaves what the first run has imported and built out of the collections after runs, a sixth of a short run."""
    gc.collect()
    gc.freeze()
