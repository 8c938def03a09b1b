"""Records of campaigns: a line of JSON for each seed, so that a campaign is resumed, and parts of it are added up.

A record belongs to a state of the code. Runs of other states stay in the file and are counted separately.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Final, final

from kaito.simulation.campaign import Counts, SeedResult

PACKAGE: Final = Path(__file__).resolve().parents[1]


@cache
def code_digest() -> str:
    """Returns a digest of the source of all installed packages of Kaito."""
    digest = hashlib.blake2b(digest_size=6)
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(str(path.relative_to(PACKAGE)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


@final
class CampaignRecord:
    """The file with the results of a campaign.

    Args:
        path: the file; it is created with the first result.
        code: state of the code.
    """

    def __init__(self, path: Path, code: str) -> None:
        self._path = path
        self._code = code
        text = path.read_text() if path.exists() else ""
        self._must_end_line = bool(text) and not text.endswith("\n")
        """Whether the file ends within a line, which an interruption cut off."""
        present = _entries(text)
        self.seeds: set[int] = {entry["seed"] for entry in present if entry["code"] == code}
        """Seeds that have been run with this state of the code."""

    def add(self, result: SeedResult) -> None:
        """Appends the result of a seed."""
        self.seeds.add(result.seed)
        entry = {
            "seed": result.seed,
            "code": self._code,
            **asdict(replace(result.counts, seconds=round(result.counts.seconds))),
            "violation": result.violation,
        }
        with self._path.open("a") as file:
            file.write(("\n" if self._must_end_line else "") + json.dumps(entry) + "\n")
        self._must_end_line = False


def summary(paths: Iterable[Path]) -> str:
    """Returns the sums of records as a Markdown table, with a row for each state of the code.

    A seed that several files contain counts once.
    """
    entries: dict[tuple[str, int], dict[str, Any]] = {}
    for path in paths:
        for entry in _entries(path.read_text()):
            entries[entry["code"], entry["seed"]] = entry
    rows = [
        "| code | seeds | virtual time | actions and faults | requests, reconciles | violations |",
        "|" + "---|" * 6,
    ]
    for code in sorted({code for code, _ in entries}):
        runs = [entry for (each, _), entry in sorted(entries.items()) if each == code]
        sums = sum((Counts(*(run[field.name] for field in fields(Counts))) for run in runs), Counts())
        violated = ", ".join(
            f"{run['seed']} ({run['violation'].partition(':')[0]})" for run in runs if run["violation"]
        )
        rows.append(
            f"| {code} | {len(runs):,} | {sums.seconds / 3600:,.0f} h | {sums.actions:,} and {sums.faults:,} "
            f"| {sums.requests:,}, {sums.reconciles:,} | {violated or 'none'} |"
        )
    return "\n".join(rows)


def _entries(text: str) -> Iterator[dict[str, Any]]:
    """Yields the results in a file, without a line that an interruption cut off."""
    for line in text.splitlines():
        with suppress(json.JSONDecodeError):
            yield json.loads(line)
