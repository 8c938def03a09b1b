"""The tool behind docs/internals/conformance.md: it sees gaps, and reads back what it wrote."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from hack.generate import conformance
from hack.generate.conformance import REAL, Run, gaps, groups, marked_files, page, plain, recorded


def _items() -> list[Mapping[str, object]]:
    return [item for group in groups() for item in group["items"]]


def _complete() -> dict[str, set[Run]]:
    runs = {"memory", REAL}
    return {str(item["id"]): {Run("test/unit/a.py", "test_it", where) for where in runs} for item in _items()}


def test_the_list_is_whole_and_in_order() -> None:
    """The checklist's numbers, and the numbered guarantees of each area, count from 1 without a gap."""
    names = [str(item["id"]) for item in _items()]
    assert len(set(names)) == len(names)
    areas: dict[str, list[int]] = {}
    for name in names:
        area, _, number = name.rpartition("-")
        if number.isdecimal():
            areas.setdefault(area, []).append(int(number))
    assert areas[""] == list(range(1, 57))
    assert {area: numbers for area, numbers in areas.items() if numbers != list(range(1, len(numbers) + 1))} == {}


def test_nothing_is_missing_when_every_guarantee_has_a_test_that_passed() -> None:
    guarantees = _complete()
    outcomes = {run: "passed" for runs in guarantees.values() for run in runs}
    assert gaps(guarantees, outcomes) == []
    text = page(guarantees, outcomes)
    count = len(_items())
    assert f"{count} of {count} guarantees have tests; 2 of 2 tests passed." in text
    assert recorded(text) == outcomes


def test_gaps_are_named() -> None:
    guarantees = _complete()
    outcomes = {run: "passed" for runs in guarantees.values() for run in runs}
    skipped = Run("test/unit/b.py", "test_other", "virtual time")
    guarantees["3"] = set()
    guarantees["18"] = {Run("test/unit/a.py", "test_it", "memory")}
    guarantees["20"] = {skipped}
    guarantees["99"] = {skipped}
    found = gaps(guarantees, outcomes | {skipped: "skipped"})
    assert [gap.partition(":")[0] for gap in found] == [
        "conformance 3 has no test",
        "conformance 18 has no test on a real API server",
        "conformance 20",
        "conformance 99 is marked by test/unit/b.py",
    ]
    assert "| 3 | Two workers never hold the same key" in page(guarantees, outcomes | {skipped: "skipped"})
    assert "**none**" in page(guarantees, outcomes | {skipped: "skipped"})


def test_both_spellings_of_a_clients_guarantee_are_the_same() -> None:
    assert [plain(name) for name in ("client-01", "client-1", "10", "client-10")] == [
        "client-1",
        "client-1",
        "10",
        "client-10",
    ]


def test_only_files_that_mention_the_marker_are_collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformance, "ROOT", tmp_path)
    for name, text in {
        "test/unit/runtime/test_marked.py": "@pytest.mark.conformance(3)",
        "test/unit/test_all.py": "pytestmark = pytest.mark.conformance(4)",
        "test/unit/test_other.py": "def test_it() -> None: ...",
        "test/contract/test_real.py": "@pytest.mark.conformance(5)",
        "test/e2e/test_elsewhere.py": "@pytest.mark.conformance(6)",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert marked_files() == [
        "test/unit/runtime/test_marked.py",
        "test/unit/test_all.py",
        "test/contract/test_real.py",
    ]


@pytest.mark.parametrize(
    ("wanted", "gap", "ran"), [("same", [], False), ("other", [], True), ("same", ["a gap"], True)]
)
def test_refresh_runs_the_tests_only_for_a_changed_list_or_a_gap(
    wanted: str, gap: list[str], ran: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def write() -> int:
        calls.append("run")
        return 0

    monkeypatch.setattr(conformance, "written", lambda: "same")
    monkeypatch.setattr(conformance, "up_to_date", lambda: (wanted, gap))
    monkeypatch.setattr(conformance, "write", write)
    assert conformance.refresh() == 0
    assert bool(calls) is ran
