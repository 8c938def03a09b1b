"""Records of campaigns are resumed and added up."""

import json
import os
from pathlib import Path

import pytest

from kaito.cli import simulate_arguments
from kaito.cli.main import parser
from kaito.runtime.testing.simulate import Report, Scenario, Step, Violation
from kaito.runtime.testing.simulate.trace import Trace
from kaito.simulation import command
from kaito.simulation.campaign import SeedResult, results_of
from kaito.simulation.record import CampaignRecord, code_digest, summary


def report(seed: int, violation: Violation | None = None) -> Report:
    steps = (Step(1.0, "create", {}), Step(2.0, "crash", {}))
    return Report(
        scenario=Scenario(seed, steps),
        violation=violation,
        trace=Trace(lambda: 0.0),
        seconds=5400.0,
        faults=1,
        reconciles=10,
        errors={},
    )


def result(seed: int, violation: Violation | None = None) -> SeedResult:
    return SeedResult.of(report(seed, violation))


def test_records_are_added_up_by_the_state_of_the_code(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    for seed in (1, 2):
        CampaignRecord(first, "old").add(result(seed))
    CampaignRecord(second, "old").add(result(2))
    CampaignRecord(second, "old").add(result(3, Violation(9.0, "no hot loop", "too many")))
    CampaignRecord(second, "new").add(result(1))
    assert summary([first, second]).splitlines()[2:] == [
        "| new | 1 | 2 h | 1 and 1 | 0, 10 | none |",
        "| old | 3 | 4 h | 3 and 3 | 0, 30 | 3 (no hot loop) |",
    ]


def test_a_campaign_runs_the_seeds_that_its_record_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, ran = tmp_path / "record.jsonl", list[int]()
    CampaignRecord(path, code_digest()).add(result(6))
    CampaignRecord(path, "other").add(result(5))

    def run_scenario(seed: int, *, short: bool) -> Report:
        assert not short
        ran.append(seed)
        return report(seed)

    monkeypatch.setattr(command, "run_scenario", run_scenario)
    flags = ["simulate", "--first", "5", "--seeds", "3", "--record", str(path)]
    assert simulate_arguments.run(parser().parse_args(flags)) == 0
    assert ran == [5, 7]
    assert simulate_arguments.run(parser().parse_args(flags)) == 0
    assert ran == [5, 7], "a resumed campaign repeats nothing"
    assert [json.loads(line)["seed"] for line in path.read_text().splitlines()] == [6, 5, 5, 7]


def test_a_line_that_an_interruption_cut_off_is_run_again(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    record = CampaignRecord(path, "code")
    record.add(result(1))
    first = len(path.read_text())
    record.add(result(2, Violation(9.0, "no hot loop", "the status of {default/a} is written")))
    whole = path.read_text()
    for length in range(first + 1, len(whole) - 1):
        path.write_text(whole[:length])
        resumed = CampaignRecord(path, "code")
        assert resumed.seeds == {1}
        resumed.add(result(2))
        assert CampaignRecord(path, "code").seeds == {1, 2}
        assert summary([path]).splitlines()[2:] == ["| code | 2 | 3 h | 2 and 2 | 0, 20 | none |"]


def test_the_summary_of_records_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "record.jsonl"
    CampaignRecord(path, "x").add(result(6))
    assert simulate_arguments.run(parser().parse_args(["simulate", "--summary", str(path)])) == 0
    assert "| x | 1 | 2 h |" in capsys.readouterr().out


def run_slowly(scenario: Scenario | int, *, short: bool = False) -> Report:
    """Runs a seed in a time that differs, so that processes end in another order than the seeds."""
    assert isinstance(scenario, int)
    assert not short
    sum(range(100_000 * (scenario % 3)))
    return report(scenario, Violation(float(os.getpid()), "no hot loop", "x") if scenario == 8 else None)


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_several_processes_return_the_results_in_the_order_of_the_seeds(jobs: int) -> None:
    found = list(results_of(range(4, 20), run_slowly, jobs=jobs))
    assert [each.seed for each in found] == list(range(4, 20))
    assert [each.seed for each in found if each.violation] == [8]


def test_several_processes_run_the_seeds_that_a_record_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "record.jsonl"
    CampaignRecord(path, code_digest()).add(result(6))
    monkeypatch.setattr(command, "run_scenario", run_slowly)
    flags = ["simulate", "--first", "5", "--seeds", "4", "--record", str(path), "--jobs", "2"]
    assert simulate_arguments.run(parser().parse_args(flags)) == 1, "seed 8 violates an invariant"
    assert [json.loads(line)["seed"] for line in path.read_text().splitlines()] == [6, 5, 7, 8]
