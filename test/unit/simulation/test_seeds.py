"""Seeds of the simulation of Kaito: a fixed range, and the same seed in two processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kaito.runtime.testing.simulate import Scenario, describe, scenario_of, simulate
from kaito.simulation.simulation import KaitoSimulation

ROOT = Path(__file__).resolve().parents[3]

PROGRAM = """
from kaito.runtime.testing.simulate import simulate
from kaito.simulation.simulation import KaitoSimulation
report = simulate(KaitoSimulation(), 1)
print(report.trace.digest, report.trace.requests, report.reconciles, report.violation)
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(4))
def test_no_invariant_is_violated(seed: int) -> None:
    report = simulate(KaitoSimulation(), seed)
    assert report.violation is None, describe(report)


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
