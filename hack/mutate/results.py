"""Store outcomes between runs, exclude equivalent mutants, and write the report."""

import hashlib
import json
import os
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hack.mutate.mutants import Mutant
from hack.mutate.target import Target
from hack.mutate.workers import Outcome

EQUIVALENT = Path(__file__).with_name("equivalent.toml")


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:20] if file.is_file() else ""


class Cache:
    """Outcomes by mutant, in a file of JSON lines.

    A killed mutant stays killed while its file and the file of the test that killed it are unchanged. A surviving
    mutant is run again when its file or a test has changed. Changes of other files are not detected: use `FRESH=1`.
    """

    def __init__(self, target: Target, folder: Path) -> None:
        self._target = target
        self._path = folder / "outcomes.jsonl"
        self._tests = hashlib.sha256("".join(map(_digest, target.test_files())).encode()).hexdigest()[:20]
        self._entries: dict[str, dict[str, object]] = {}
        if self._path.exists():
            for line in self._path.read_text().splitlines():
                entry = json.loads(line)
                self._entries[entry["id"]] = entry

    def get(self, mutant: Mutant) -> Outcome | None:
        """Returns the outcome of an earlier run, if it is still valid."""
        entry = self._entries.get(mutant.id)
        if (
            entry is None
            or entry["file"] != self._file_mark(mutant)
            or entry["tests"] != self._tests_mark(str(entry["test"]))
        ):
            return None
        return Outcome(**entry["outcome"])  # type: ignore[arg-type]

    def last(self, mutant: Mutant) -> Outcome | None:
        """The last outcome, even where files have changed since."""
        entry = self._entries.get(mutant.id)
        return None if entry is None else Outcome(**entry["outcome"])  # type: ignore[arg-type]

    def put(self, mutant: Mutant, outcome: Outcome) -> None:
        """Appends an outcome; several processes may write."""
        entry = {
            "id": mutant.id,
            "file": self._file_mark(mutant),
            "test": outcome.test,
            "tests": self._tests_mark(outcome.test),
            "outcome": asdict(outcome),
        }
        with self._path.open("a") as lines:
            lines.write(json.dumps(entry) + os.linesep)

    def clear(self) -> None:
        """Deletes every outcome."""
        self._entries.clear()
        self._path.unlink(missing_ok=True)

    def kills(self) -> Counter[tuple[str, str]]:
        """Tests that killed, by the file of the mutant: they run first."""
        return Counter((str(entry["file"]).partition(":")[0], str(entry["test"])) for entry in self._entries.values())

    def _file_mark(self, mutant: Mutant) -> str:
        return f"{mutant.file}:{_digest(self._target.root / mutant.file)}"

    def _tests_mark(self, test: str) -> str:
        return _digest(self._target.root / test.partition("::")[0]) if "::" in test else self._tests


@dataclass(frozen=True, slots=True)
class Equivalent:
    """A change that no test can detect, with the reason."""

    file: str
    scope: str
    before: str
    after: str
    reason: str

    @classmethod
    def load(cls) -> list["Equivalent"]:
        """Reads the list."""
        document = tomllib.loads(EQUIVALENT.read_text()) if EQUIVALENT.exists() else {}
        entries: list[dict[str, str]] = document.get("mutant", [])
        return [
            cls(entry["file"], entry.get("scope", ""), entry["before"], entry["after"], entry["reason"])
            for entry in entries
        ]

    def matches(self, mutant: Mutant) -> bool:
        """Reports whether the entry describes the mutant."""
        return (self.file, self.scope, self.before, self.after) == (
            mutant.file,
            mutant.scope,
            mutant.before,
            mutant.after,
        )


def entry_for(mutant: Mutant) -> str:
    """The lines to put into equivalent.toml when the change makes no difference."""
    lines = ["[[mutant]]", f"file = {json.dumps(mutant.file)}", f"scope = {json.dumps(mutant.scope)}"]
    lines += [f"before = {json.dumps(mutant.before)}", f"after = {json.dumps(mutant.after)}", 'reason = ""']
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Score:
    """The score of a run."""

    mutants: int
    killed: int
    equivalent: int
    survived: int
    unreached: int

    @property
    def percent(self) -> float:
        """Share of killed mutants among those that are not equivalent."""
        relevant = self.mutants - self.equivalent
        return 100 * self.killed / relevant if relevant else 100.0


def score(outcomes: Mapping[Mutant, Outcome], equivalents: Sequence[Equivalent]) -> tuple[Score, list[Mutant]]:
    """Computes the score, and lists the surviving mutants that are not equivalent."""
    equivalent, survivors, killed, unreached = 0, list[Mutant](), 0, 0
    for mutant, outcome in outcomes.items():
        if outcome.status in ("killed", "timeout"):
            killed += 1
        elif any(entry.matches(mutant) for entry in equivalents):
            equivalent += 1
        else:
            survivors.append(mutant)
            unreached += outcome.status == "unreached"
    return Score(len(outcomes), killed, equivalent, len(survivors) - unreached, unreached), survivors


def stale(equivalents: Iterable[Equivalent], target: Target, mutants: Iterable[Mutant]) -> list[Equivalent]:
    """Entries for files of the target that match none of its mutants."""
    files = {str(file.relative_to(target.root)) for file in target.sources}
    known = {(mutant.file, mutant.scope, mutant.before, mutant.after) for mutant in mutants}
    return [
        entry
        for entry in equivalents
        if entry.file in files and (entry.file, entry.scope, entry.before, entry.after) not in known
    ]


def report(target: Target, outcomes: Mapping[Mutant, Outcome], survivors: Sequence[Mutant], result: Score) -> str:
    """The survivors as diffs, with the entry for the list of equivalent mutants under each."""
    parts = [f"# {target.name}: {summary(result)}\n"]
    for mutant in survivors:
        outcome = outcomes[mutant]
        ran = "no test runs this line" if outcome.status == "unreached" else f"{outcome.tests} tests passed"
        original = (target.root / mutant.file).read_text()
        where = f"{mutant.file}:{mutant.first_line} {mutant.scope}".rstrip()
        blocks = f"```diff\n{mutant.diff(original)}```\n\n```toml\n{entry_for(mutant)}\n```\n"
        parts.append(f"## {where}: {ran} ({mutant.id})\n\n{blocks}")
    return "\n".join(parts)


def summary(result: Score) -> str:
    """The score in one line."""
    return (
        f"{result.percent:.1f} % ({result.mutants} mutants, {result.killed} killed, {result.equivalent} equivalent, "
        f"{result.survived} survived, {result.unreached} in lines that no test runs)"
    )
