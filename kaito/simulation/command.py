"""The command `kaito simulate`: runs seeds of `KaitoSimulation`, explains a seed, and minimizes failing ones."""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import final

from kaito.runtime.testing.simulate import Report, Scenario, describe, minimize, pytest_case, simulate
from kaito.simulation.campaign import Counts, SeedResult, results_of
from kaito.simulation.record import CampaignRecord, code_digest, summary
from kaito.simulation.short import REST_SECONDS, SHORT_SECONDS, short_scenario
from kaito.simulation.simulation import KaitoSimulation


@final
@dataclass(slots=True)
class Totals:
    """Sums of a campaign."""

    seeds: int = 0
    counts: Counts = field(default_factory=Counts)
    violations: Counter[str] = field(default_factory=Counter[str])

    def add(self, result: SeedResult) -> None:
        """Adds a run."""
        self.seeds += 1
        self.counts += result.counts
        if result.violation:
            self.violations[result.invariant] += 1

    def __str__(self) -> str:
        counts = self.counts
        hours = f"{counts.seconds / 3600:,.0f} virtual hours"
        work = f"{counts.actions:,} actions, {counts.faults:,} faults, {counts.requests:,} requests"
        found = ", ".join(f"{name}: {count}" for name, count in sorted(self.violations.items())) or "none"
        return f"{self.seeds:,} seeds, {hours}, {work}, {counts.reconciles:,} reconciles; violations: {found}"


def run_scenario(scenario: Scenario | int, *, short: bool = False, verbose: bool = False) -> Report:
    """Runs a scenario in a new world; `short` is that of a seed, or with which a scenario was drawn."""
    if not short:
        return simulate(KaitoSimulation(), scenario, verbose=verbose)
    chosen = short_scenario(scenario) if isinstance(scenario, int) else scenario
    simulation = KaitoSimulation(trouble_seconds=SHORT_SECONDS, rest_seconds=REST_SECONDS, ends_early=True)
    return simulate(simulation, chosen, verbose=verbose)


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
    runs = partial(run_scenario, short=arguments.short)
    report = runs(scenario, verbose=arguments.explain)
    if report.violation is not None and arguments.minimize:
        _, report = minimize(report, runs)
        _print(describe(runs(report.scenario, verbose=arguments.explain)))
        _print(pytest_case(report, "KaitoSimulation"))
    else:
        _print(describe(report, lines=100_000 if arguments.explain else 60))
    return 0 if report.violation is None else 1


def _campaign(seeds: Iterable[int], arguments: argparse.Namespace) -> int:
    totals, began = Totals(), time.monotonic()
    runs = partial(run_scenario, short=arguments.short)
    code = f"{code_digest()} (short)" if arguments.short else code_digest()
    record = None if arguments.record is None else CampaignRecord(arguments.record, code)
    left = [seed for seed in seeds if record is None or seed not in record.seeds]
    for result in results_of(left, runs, jobs=arguments.jobs, minimizes=arguments.minimize):
        totals.add(result)
        if record is not None:
            record.add(result)
        if result.violation:
            _print(f"seed {result.seed}: {result.violation}")
            if result.description:
                _print(result.description)
        if totals.seeds % 100 == 0:
            _print(f"{totals} ({time.monotonic() - began:.0f} s)")
    _print(f"{totals} ({time.monotonic() - began:.0f} s)")
    return 1 if totals.violations else 0


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
