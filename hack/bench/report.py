"""`Report`: the result of one benchmark, printed as one JSON object and as one Markdown table.

Every benchmark returns reports; `python -m hack.bench` prints them, and `docs/internals/benchmarks.md` records them.
"""

import json
import os
import platform
import statistics
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Figures = Mapping[str, float | int | str | None]
"""One row, or one turn of one: a value for each column; None, or nothing at all, where it does not apply."""

MISSING = "-"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    key: str
    heading: str
    form: str = "{}"
    """How a value is written, units included."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured, how, and the figures."""

    name: str
    about: str
    """One sentence that describes the figures."""
    settings: Mapping[str, object]
    """Sizes, times, numbers of runs."""
    columns: Sequence[Column]
    rows: Mapping[str, Figures]
    turns: Mapping[str, Sequence[Figures]] = field(default_factory=dict[str, Sequence[Figures]])
    """The figures of each run where the rows are medians."""

    def as_json(self, machine: Mapping[str, object]) -> str:
        """One line with everything; `machine` as of before the benchmark."""
        return json.dumps(
            {
                "benchmark": self.name,
                "about": self.about,
                "settings": dict(self.settings),
                "machine": dict(machine),
                "rows": self.rows,
                "turns": {name: [_rounded(turn) for turn in turns] for name, turns in self.turns.items()},
            }
        )

    def as_markdown(self) -> str:
        """The table, one row per peer or form."""
        lines = [
            "| | " + " | ".join(column.heading for column in self.columns) + " |",
            "|---" * (len(self.columns) + 1) + "|",
        ]
        for name, row in self.rows.items():
            cells = [_cell(row.get(column.key), column.form) for column in self.columns]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        return "\n".join(lines)


def _rounded(turn: Figures) -> Figures:
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in turn.items()}


def _cell(value: float | str | None, form: str) -> str:
    return MISSING if value is None else form.format(value)


def this_machine() -> dict[str, Any]:
    """The machine and its load average, which shows whether wall times are reliable."""
    return {
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


async def in_turn(
    names: Iterable[str], runs: int, turn: Callable[[str, int], Awaitable[Figures]]
) -> dict[str, list[Figures]]:
    """Runs `turn(name, run)` for all names round by round, so that noise affects all equally; prints the figures."""
    turns: dict[str, list[Figures]] = {name: [] for name in names}
    for run in range(runs):
        for name, some in turns.items():
            some.append(await turn(name, run))
            print(f"  {name} {run + 1}/{runs}: {some[-1]}", file=sys.stderr, flush=True)
    return turns


def medians(turns: Mapping[str, Sequence[Figures]]) -> dict[str, Figures]:
    """Returns the median of every figure over the turns of a row, and the text of the last turn."""
    return {name: _median(some) for name, some in turns.items() if some}


def _median(turns: Sequence[Figures]) -> Figures:
    row: dict[str, float | int | str | None] = {}
    for key, last in turns[-1].items():
        values = [value for turn in turns if isinstance(value := turn.get(key), int | float)]
        row[key] = round(statistics.median(values), 4) if values else last
    return row
