"""Compares this tree with an earlier commit: a working tree of the commit, and ratios of rows of one round."""

import subprocess
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hack.bench.report import Column, Figures, Report

ROOT = Path(__file__).resolve().parents[2]
BASELINE = "7fb0ead"
"""The commit with which the targets of `docs/internals/benchmarks.md` are compared, unless another one is named."""


@contextmanager
def checked_out(commit: str) -> Generator[Path]:
    """A working tree of the commit in a temporary folder, for the length of the body.

    Raises:
        SystemExit: the commit is not in this repository.
    """
    known = subprocess.run(
        ["git", "cat-file", "-e", f"{commit}^{{commit}}"], cwd=ROOT, check=False, capture_output=True
    )
    if known.returncode:
        raise SystemExit(f"commit {commit} is not in this repository: name another with --baseline")
    with tempfile.TemporaryDirectory(prefix="kaito-bench-") as folder:
        tree = Path(folder) / "tree"
        subprocess.run(["git", "worktree", "add", "-q", "--detach", str(tree), commit], cwd=ROOT, check=True)
        try:
            yield tree
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)


def ratios(turns: Mapping[str, Sequence[Figures]], peer: str, baseline: str, columns: Sequence[Column]) -> Figures:
    """Of each figure, the median over the rounds of peer divided by baseline, and the spread."""
    row: dict[str, float | int | str | None] = {}
    for column in columns:
        pairs = zip(turns[peer], turns[baseline], strict=True)
        found = sorted(_number(ours, column.key) / max(_number(theirs, column.key), 0.01) for ours, theirs in pairs)
        row[column.key] = f"{found[len(found) // 2]:.2f} ({found[0]:.2f} to {found[-1]:.2f})"
    return row


def ratios_report(report: Report, baseline: str, columns: Sequence[Column], rows: Mapping[str, Figures]) -> Report:
    """A report of the `ratios` of rows of another report to the baseline."""
    return Report(
        name=f"{report.name}-ratios",
        about=f"the same as ratios to {baseline} in the same round: the median and, in brackets, the spread",
        settings=report.settings,
        columns=[Column(column.key, column.heading) for column in columns],
        rows=rows,
    )


def beside(report: Report, peer: str, keys: Sequence[str]) -> Report:
    """The figures of a peer as ratios to those of every other row of the report, of the turns of one round."""
    columns = [Column(column.key, column.heading) for column in report.columns if column.key in keys]
    others = [name for name in report.turns if name != peer] if peer in report.turns else []
    return Report(
        name=f"{report.name}-ratios",
        about=f"{peer} as ratios to the others in the same round: the median and, in brackets, the spread",
        settings=report.settings,
        columns=columns,
        rows={f"{peer} / {other}": ratios(report.turns, peer, other, columns) for other in others},
    )


def _number(row: Figures, key: str) -> float:
    value = row.get(key)
    return float(value) if isinstance(value, int | float) else 0.0
