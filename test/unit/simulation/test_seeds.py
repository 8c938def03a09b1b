"""The simulation of Kaito: the scenarios of the planted bugs, a range of seeds, and one seed in two processes."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from hack.planted import TABLE, run_named
from kaito.runtime.testing.simulate import Scenario, describe, scenario_of, simulate
from kaito.simulation.command import run_scenario
from kaito.simulation.short import SHORT_SECONDS, STEPS, short_scenario
from kaito.simulation.simulation import KaitoSimulation

ROOT = Path(__file__).resolve().parents[3]

SCENARIOS = [scenario["name"] for scenario in tomllib.loads(TABLE.read_text())["scenario"]]

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.json"))
"""Scenarios of seeds that have found a bug, by the number of the seed. Their steps are stored, because a new kind of
step changes what a seed draws.

202: a claim that was removed before its agent pool, after Azure had answered that the cluster does not exist.
213: an invariant that called the replacement of an evicted node unnecessary.
301: a replacement that was counted as lost before it was created.
302: a claim that was given up for a node that had become Ready.
3008: a claim that was removed before its agent pool.
20000: a launch that began while another reconcile of the new leader was reading the launch records.
300365: an invariant that expected the deletion of a claim while gpu-provisioner had no leader.
slices: copies that share nodes with divided GPUs, which no seed draws.
"""

PROGRAM = """
from hack.planted import TABLE, run_named
from kaito.runtime.testing.simulate import simulate
from kaito.simulation.simulation import KaitoSimulation
for seed in (1, 101):
    report = simulate(KaitoSimulation(), seed)
    print(report.trace.digest, report.trace.requests, report.reconciles, report.violation)
"""


@pytest.mark.slow("test_no_invariant_is_violated")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_that_finds_planted_bugs_violates_nothing_without_them(name: str) -> None:
    report = run_named(name)
    assert report.violation is None, describe(report)


@pytest.mark.slow("test_no_invariant_is_violated")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_no_scenario_of_the_corpus_violates_an_invariant(path: Path) -> None:
    report = simulate(KaitoSimulation(), Scenario.from_json(path.read_text()))
    assert report.violation is None, describe(report)


@pytest.mark.sample(1)
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [2, 10000])
def test_no_invariant_is_violated(seed: int) -> None:
    report = simulate(KaitoSimulation(), seed)
    assert report.violation is None, describe(report)


@pytest.mark.sample(1)
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(5))
def test_no_short_scenario_violates_an_invariant(seed: int) -> None:
    report = run_scenario(seed, short=True)
    assert report.violation is None, describe(report)


@pytest.mark.parametrize("seed", range(50))
def test_a_short_scenario_has_few_steps_about_one_or_two_workspaces(seed: int) -> None:
    scenario = short_scenario(seed)
    assert scenario == short_scenario(seed)
    assert scenario.steps[0].name == "create"
    assert len(scenario.steps) <= STEPS
    assert max(step.at for step in scenario.steps) < SHORT_SECONDS
    named = {
        (step.arguments["namespace"], step.arguments["name"]) for step in scenario.steps if "name" in step.arguments
    }
    assert 1 <= len(named) <= 2


@pytest.mark.slow("test_no_invariant_is_violated")
@pytest.mark.timeout(300)
def test_a_seed_is_the_same_run_in_every_process() -> None:
    """Python orders sets of strings differently in each process; no decision may depend on that."""
    found = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1, found


def test_a_scenario_is_read_from_what_was_written() -> None:
    scenario = scenario_of(KaitoSimulation(), 7)
    assert Scenario.from_json(scenario.to_json()) == scenario
    assert len(scenario.steps) > 10
