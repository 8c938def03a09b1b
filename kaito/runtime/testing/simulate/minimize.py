"""Minimizes a failing scenario: finds a small subset of its steps that still violates the same invariant.

Delta debugging (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", 2002) over the steps, after
the steps that follow the violation are dropped. Every candidate is a complete run, so the search has a budget.
"""

from collections.abc import Callable, Sequence
from typing import Final

from kaito.runtime.testing.simulate.run import Report
from kaito.runtime.testing.simulate.steps import Scenario, Step

DEFAULT_BUDGET: Final = 150
"""Number of runs."""


def minimize(
    report: Report, run: Callable[[Scenario], Report], *, budget: int = DEFAULT_BUDGET
) -> tuple[Scenario, Report]:
    """Returns a smaller scenario that violates the same invariant, and its report.

    Args:
        report: the report of the failing run.
        run: runs a scenario.
        budget: highest number of runs.

    Raises:
        ValueError: the report has no violation.
    """
    if report.violation is None:
        message = "the run has no violation: there is nothing to minimize"
        raise ValueError(message)
    invariant, best = report.violation.invariant, report
    left = budget

    def fails(steps: Sequence[Step]) -> bool:
        nonlocal best, left
        if left <= 0:
            return False
        left -= 1
        candidate = run(best.scenario.with_steps(steps))
        if candidate.violation is None or candidate.violation.invariant != invariant:
            return False
        best = candidate
        return True

    steps = [step for step in report.scenario.steps if step.at <= report.violation.at]
    if len(steps) < len(report.scenario.steps) and not fails(steps):
        steps = list(report.scenario.steps)
    parts = 2
    while len(steps) >= 2 and left > 0:
        size = max(len(steps) // parts, 1)
        for start in range(0, len(steps), size):
            rest = [*steps[:start], *steps[start + size :]]
            if rest and fails(rest):
                steps, parts = rest, max(parts - 1, 2)
                break
        else:
            if size == 1:
                break
            parts = min(parts * 2, len(steps))
    return best.scenario, best
