"""The command `kaito simulate`: runs seeds of `KaitoSimulation`, explains a seed, and minimizes failing ones."""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from kaito.runtime.testing.simulate import Report, Scenario, describe, minimize, pytest_case, simulate
from kaito.simulation.record import CampaignRecord, code_digest, summary
from kaito.simulation.simulation import KaitoSimulation


@final
@dataclass(slots=True)
class Totals:
    """Sums of a campaign."""

    seeds: int = 0
    seconds: float = 0.0
    steps: int = 0
    faults: int = 0
    requests: int = 0
    reconciles: int = 0
    errors: Counter[str] = field(default_factory=Counter[str])
    violations: Counter[str] = field(default_factory=Counter[str])

    def add(self, report: Report) -> None:
        """Adds a run."""
        self.seeds += 1
        self.seconds += report.seconds
        self.steps += len(report.scenario.steps)
        self.faults += report.faults
        self.requests += report.trace.requests
        self.reconciles += report.reconciles
        self.errors.update(report.errors)
        if report.violation is not None:
            self.violations[report.violation.invariant] += 1

    def __str__(self) -> str:
        hours = f"{self.seconds / 3600:,.0f} virtual hours"
        work = f"{self.steps - self.faults:,} actions, {self.faults:,} faults, {self.requests:,} requests"
        found = ", ".join(f"{name}: {count}" for name, count in sorted(self.violations.items())) or "none"
        return f"{self.seeds:,} seeds, {hours}, {work}, {self.reconciles:,} reconciles; violations: {found}"


def run_scenario(scenario: Scenario | int, *, verbose: bool = False) -> Report:
    """Runs a scenario in a new world."""
    return simulate(KaitoSimulation(), scenario, verbose=verbose)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns 1 if an invariant was violated."""
    if arguments.summary:
        _print(summary(arguments.summary))
        return 0
    if arguments.scenario is not None:
        chosen: Scenario | int = Scenario.from_json(Path(arguments.scenario).read_text())
        return _one(chosen, arguments)
    if arguments.seed is not None:
        return _one(arguments.seed, arguments)
    return _campaign(range(arguments.first, arguments.first + arguments.seeds), arguments)


def _one(scenario: Scenario | int, arguments: argparse.Namespace) -> int:
    report = run_scenario(scenario, verbose=arguments.explain)
    if report.violation is not None and arguments.minimize:
        _, report = minimize(report, run_scenario)
        _print(describe(run_scenario(report.scenario, verbose=arguments.explain)))
        _print(pytest_case(report, "KaitoSimulation"))
    else:
        _print(describe(report, lines=100_000 if arguments.explain else 60))
    return 0 if report.violation is None else 1


def _campaign(seeds: Iterable[int], arguments: argparse.Namespace) -> int:
    totals, began = Totals(), time.monotonic()
    record = None if arguments.record is None else CampaignRecord(arguments.record, code_digest())
    for seed in seeds:
        if record is not None and seed in record.seeds:
            continue
        report = run_scenario(seed)
        totals.add(report)
        if record is not None:
            record.add(report)
        if report.violation is not None:
            _print(f"seed {seed}: {report.violation}")
            if arguments.minimize:
                _, report = minimize(report, run_scenario)
                _print(describe(report))
                _print(pytest_case(report, "KaitoSimulation"))
        if totals.seeds % 100 == 0:
            _print(f"{totals} ({time.monotonic() - began:.0f} s)")
    _print(f"{totals} ({time.monotonic() - began:.0f} s)")
    return 1 if totals.violations else 0


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
