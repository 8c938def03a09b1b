"""Reports of runs for readers: the sequence of what happened, and a test that repeats it."""

import json
from collections.abc import Iterator
from typing import Final

from kaito.runtime.testing.simulate.run import Report
from kaito.runtime.testing.simulate.steps import Scenario

LINE_CHARACTERS: Final = 180

_TEST: Final = '''\
def test_seed_{seed}_{name}() -> None:
    """{text}"""
    scenario = Scenario.from_json(
        """
{document}
        """
    )
    report = simulate({simulation}(), scenario)
    assert report.violation is None, describe(report)
'''


def describe(report: Report, *, lines: int = 400) -> str:
    """Returns the sequence of a run as text: its last lines, and the violation.

    Args:
        report: the report.
        lines: highest number of lines.
    """
    return "\n".join(_lines(report, lines))


def _lines(report: Report, count: int) -> Iterator[str]:
    steps = len(report.scenario.steps)
    yield (
        f"seed {report.scenario.seed}: {steps - report.faults} actions of users and {report.faults} faults; "
        f"{report.trace.requests} requests in {report.seconds / 60:.0f} virtual minutes; trace {report.trace.digest}"
    )
    skipped = len(report.trace.lines) - count
    if skipped > 0:
        yield f"… {skipped} earlier lines"
    for line in report.trace.lines[-count:]:
        text = str(line)
        yield text if len(text) <= LINE_CHARACTERS else text[: LINE_CHARACTERS - 1] + "…"
    if report.violation is None:
        yield "no violation"
    else:
        yield f"violated after {report.violation.at:.3f} s: {report.violation}"


def scenario_lines(scenario: Scenario) -> str:
    """Returns the scenario as JSON with one line for each step."""
    steps = ",\n".join(f"  {json.dumps(step.to_json())}" for step in scenario.steps)
    return f'{{"seed": {scenario.seed}, "steps": [\n{steps}\n]}}'


def pytest_case(report: Report, simulation: str) -> str:
    """Returns the source of a test that repeats a failing run.

    Args:
        report: the report of the minimized run.
        simulation: name of the class of the simulation.
    """
    violation = report.violation
    invariant = "nothing" if violation is None else violation.invariant
    name = "".join(character if character.isalnum() else "_" for character in invariant)
    return _TEST.format(
        seed=report.scenario.seed,
        name=name,
        text=str(violation).replace("\\", "\\\\").replace('"', "'"),
        document=scenario_lines(report.scenario),
        simulation=simulation,
    )
