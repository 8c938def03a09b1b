"""Measures the time from the sending of a change to the start of its reconcile, at 200 changes/s on 500 ConfigMaps.

A separate process (`hack.bench.framework.load`) writes CLOCK_MONOTONIC into the object immediately before it sends the
patch; the reconcile function compares it with CLOCK_MONOTONIC, which all processes of a machine share. A latency
consists of the request, the API server with etcd, its watch, and the peer: decoding, cache, queue, worker. The row of a
bare watch, which only splits and decodes lines, shows the part outside the peer.

* p50, p99, longest: over all changes of a run; the row is the median of the runs' figures.
* seen: changes that a reconcile received. A change that the next change of its object supersedes is not counted; at
  this rate an object changes every 2.5 s.
* CPU per change: of the peer, from the first change to two seconds after the last.
* load late: how much later than planned the load sent its changes, p99: above a few milliseconds the machine is busy
  and the latencies are not meaningful.

kopf uses `on.event`, its cheapest handler. Not measured: more than one change in a batch, slow reconciles.
"""

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hack.bench.compare import beside
from hack.bench.framework.cluster import Cluster, connected
from hack.bench.framework.peers import CONTROLLER_RUNTIME, KOPF, OURS, WATCH, command, load, peer
from hack.bench.report import Column, Figures, Report, in_turn, medians
from hack.envtest import ControlPlane

PEERS = (OURS, CONTROLLER_RUNTIME, KOPF, WATCH)
WARM_SECONDS = 2.0
LEAST_SEEN = 0.9
"""Minimum share of changes that are observed individually; a run below it is invalid."""

COLUMNS = (
    Column("p50_ms", "p50", "{:.1f} ms"),
    Column("p99_ms", "p99", "{:.1f} ms"),
    Column("longest_ms", "longest", "{:.0f} ms"),
    Column("seen_percent", "seen", "{:.1f} %"),
    Column("cpu_ms_per_change", "CPU per change", "{:.2f} ms"),
    Column("late_p99_ms", "load late, p99", "{:.1f} ms"),
)
RATIO_KEYS = ("p50_ms", "p99_ms", "cpu_ms_per_change")


class NotSeen(Exception):
    """Too few changes were observed."""


def quantile(values: Sequence[float], part: float) -> float:
    """The quantile of the values (nearest rank)."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


async def turn(
    cluster: Cluster, name: str, started: Sequence[str], generator: Sequence[str], options: Any, log: Path
) -> Figures:
    """Runs one peer once."""
    await cluster.reset(options.objects, name)
    async with peer(name, started, log=log) as running:
        await running.until("synced")
        await asyncio.sleep(WARM_SECONDS)
        before = running.cost
        async with peer("load", generator, log=log) as loading:
            made = await running.alongside(loading.until("result", timeout=options.seconds * 3 + 30))
        await asyncio.sleep(WARM_SECONDS)
        after = running.cost
        latencies = [value / 1e6 for value in (await running.end())["nanoseconds"]]
    if len(latencies) < LEAST_SEEN * made["changes"]:
        raise NotSeen(f"{name} saw {len(latencies)} of {made['changes']} changes")
    return {
        "p50_ms": quantile(latencies, 0.5),
        "p99_ms": quantile(latencies, 0.99),
        "longest_ms": max(latencies),
        "seen_percent": 100 * len(latencies) / made["changes"],
        "cpu_ms_per_change": 1000 * (after.cpu_seconds - before.cpu_seconds) / made["changes"],
        "late_p99_ms": 1000 * quantile(made["late"], 0.99),
        "changes_per_second": made["changes"] / made["seconds"],
    }


async def measure(control_plane: ControlPlane, options: argparse.Namespace) -> Report:
    """All turns, and their medians by peer."""
    kubeconfig = str(control_plane.kubeconfig)
    commands = {name: [*command(name), "latency", kubeconfig] for name in options.peers}
    if KOPF in commands:
        commands[KOPF] += ["--expect", str(options.objects)]
    generator = load(kubeconfig, rate=options.rate, seconds=options.seconds, objects=options.objects)
    async with connected(control_plane.kubeconfig) as cluster:
        await cluster.create(options.objects)

        async def one(name: str, _: int) -> Figures:
            log = control_plane.folder / f"{name}.log"
            return await turn(cluster, name, commands[name], generator, options, log)

        turns = await in_turn(commands, options.runs, one)
    return Report(
        name="latency",
        about=f"from the sending of a change to the start of its reconcile, {options.rate:g} changes/s for "
        f"{options.seconds:g} s on {options.objects} ConfigMaps; medians of {options.runs}",
        settings={key: vars(options)[key] for key in ("objects", "rate", "seconds", "runs")},
        columns=COLUMNS,
        rows=medians(turns),
        turns=turns,
    )


def benchmark(arguments: Sequence[str]) -> list[Report]:
    """Runs the benchmark with command-line options; returns its reports."""
    parser = argparse.ArgumentParser(
        prog="python -m hack.bench latency", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=500)
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    options = parser.parse_args(arguments)
    with ControlPlane() as control_plane:
        report = asyncio.run(measure(control_plane, options))
    return [report, beside(report, OURS, RATIO_KEYS)]
