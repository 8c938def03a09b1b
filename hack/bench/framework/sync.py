"""Measures the initial sync: time and memory from the start of a process until it caches 20,000 ConfigMaps of 1 KB.

Each peer is a manager that only caches the ConfigMaps: no controller, no handler. kopf has no cache; its peer keeps
every object in a dictionary, filled by an `on.event` handler. (`kopf.index` would be a closer equivalent, but is too
slow: on a busy machine 2,000 objects took 7 s, 4,000 took 126 s, and 20,000 did not finish within 300 s.)

* synced: from the start of the process, interpreter and imports included, until the peer reports a full cache.
* of that, the manager: without interpreter, imports and the manager's construction (kopf: without imports), as
  measured by the peer.
* CPU: of the process until then. Peak RSS: until five seconds later.
* RSS settled: RSS five seconds later, without a forced garbage collection, as an operator's container shows it.
* RSS per object: (RSS - RSS of the same program whose selector matches nothing) / objects, both after a garbage
  collection that returned free memory to the system (`runtime.GC` and `debug.FreeOSMemory` in Go; `gc.collect` and
  `malloc_trim` in Python).

Not measured: handlers and the queue (see the `framework` benchmark), and the API server's own CPU and memory. It serves
the lists from its watch cache, on the same machine.
"""

import argparse
import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from hack.bench.compare import beside
from hack.bench.framework.cluster import LABEL, connected
from hack.bench.framework.peers import CONTROLLER_RUNTIME, KOPF, OURS, command, peer
from hack.bench.report import Column, Figures, Report, in_turn, medians
from hack.envtest import ControlPlane

NOTHING = ("--labels", "bench=none")
"""A selector that matches no object."""
NOWHERE = ("--namespace", "kube-public")
"""The same for kopf, which fetches all objects and then filters by label."""

ROWS = {
    "ours": (OURS, False),
    "controller-runtime": (CONTROLLER_RUNTIME, False),
    "kopf": (KOPF, False),
    "ours, metadata only": (OURS, True),
    "controller-runtime, metadata only": (CONTROLLER_RUNTIME, True),
}
SETTLE_SECONDS = 5.0

COLUMNS = (
    Column("synced_seconds", "synced", "{:.2f} s"),
    Column("manager_seconds", "of that, the manager", "{:.2f} s"),
    Column("cpu_seconds", "CPU", "{:.2f} s"),
    Column("peak_rss_mib", "peak RSS", "{:.0f} MiB"),
    Column("settled_rss_mib", "RSS settled", "{:.0f} MiB"),
    Column("rss_kib_per_object", "RSS per object", "{:.2f} KiB"),
    Column("empty_rss_mib", "RSS without objects", "{:.0f} MiB"),
)
RATIO_KEYS = ("synced_seconds", "cpu_seconds", "peak_rss_mib", "rss_kib_per_object")


class Incomplete(Exception):
    """A peer reported a full cache, but objects were missing."""


async def empty(name: str, started: Sequence[str], log: Path, settle: float) -> float:
    """Resident MiB of the program without objects, after a collection."""
    async with peer(name, started, log=log) as running:
        await running.until("synced")
        await asyncio.sleep(settle / 5)
        await running.collect()
        rss = running.cost.rss_mib
        await running.end()
    return rss


async def turn(name: str, started: Sequence[str], objects: int, log: Path, settle: float) -> dict[str, float]:
    """Runs one peer once."""
    begun = time.monotonic()
    async with peer(name, started, log=log) as running:
        event = await running.until("synced")
        synced, cost = time.monotonic() - begun, running.cost
        if event["objects"] != objects:
            raise Incomplete(f"{name} holds {event['objects']} of {objects} objects")
        await asyncio.sleep(settle)
        settled = running.cost
        await running.collect()
        collected = running.cost.rss_mib
        await running.end()
    return {
        "synced_seconds": synced,
        "manager_seconds": event["seconds"],
        "cpu_seconds": cost.cpu_seconds,
        "peak_rss_mib": settled.peak_rss_mib,
        "settled_rss_mib": settled.rss_mib,
        "collected_rss_mib": collected,
    }


async def measure(control_plane: ControlPlane, names: Sequence[str], objects: int, runs: int, settle: float) -> Report:
    """Runs all peers in turn and reports the medians by peer."""
    commands = {peer_name: command(peer_name) for peer_name, _ in (ROWS[name] for name in names)}
    async with connected(control_plane.kubeconfig) as cluster:
        await cluster.create(objects)

    async def one(name: str, _: int) -> Figures:
        of, metadata_only = ROWS[name]
        log = control_plane.folder / f"{of}.log"
        started = [*commands[of], "sync", str(control_plane.kubeconfig), *(["--metadata"] if metadata_only else [])]
        expecting = ["--expect", str(objects)] if of == KOPF else []
        without = await empty(name, [*started, *(NOWHERE if of == KOPF else NOTHING)], log, settle)
        figures = await turn(name, [*started, "--labels", LABEL, *expecting], objects, log, settle)
        figures["empty_rss_mib"] = without
        figures["rss_kib_per_object"] = (figures["collected_rss_mib"] - without) * 1024 / objects
        return figures

    turns = await in_turn(names, runs, one)
    return Report(
        name="sync",
        about=f"from the start of a process to a cache of {objects:,} ConfigMaps of 1 KB; medians of {runs}",
        settings={"objects": objects, "runs": runs, "settle_seconds": settle},
        columns=COLUMNS,
        rows=medians(turns),
        turns=turns,
    )


def benchmark(arguments: Sequence[str]) -> list[Report]:
    """Runs the benchmark with command-line options; returns its reports."""
    parser = argparse.ArgumentParser(
        prog="python -m hack.bench sync", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--settle", type=float, default=SETTLE_SECONDS, help="seconds between full and settled")
    parser.add_argument("--peers", nargs="+", choices=ROWS, default=list(ROWS))
    options = parser.parse_args(arguments)
    with ControlPlane() as control_plane:
        report = asyncio.run(measure(control_plane, options.peers, options.objects, options.runs, options.settle))
    return [report, beside(report, OURS, RATIO_KEYS)]
