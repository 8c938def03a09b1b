"""Measures cache reads of the framework and controller-runtime: Get by key, List of 1,000 by label, Get after a write.

The cache holds 5,000 ConfigMaps of 1 KB, a fifth of them with the label that is listed. Both sides return a private
copy of every object: the framework decodes it again, controller-runtime copies it deeply. One task (one goroutine)
reads.

* get, list: reads a second, and the CPU time of one, of all threads.
* stale: number of reads, each directly after one of 500 writes, that did not return the write. The framework waits for
  its own writes by default.
* visible after: from the response to the write to a read that returns it, p50 and p99. controller-runtime's cache is
  read every 50 µs; the framework's once.

Not measured: reads from many tasks at once, and against a busy watch.
"""

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from hack.bench.compare import beside
from hack.bench.framework.cluster import connected
from hack.bench.framework.latency import quantile
from hack.bench.framework.peers import CONTROLLER_RUNTIME, OURS, command, peer
from hack.bench.report import Column, Figures, Report, in_turn, medians
from hack.envtest import ControlPlane

NAMES = (OURS, CONTROLLER_RUNTIME)
LISTED_PART = 5

COLUMNS = (
    Column("get_per_second", "get by key", "{:,.0f}/s"),
    Column("get_cpu_us", "CPU of one", "{:.1f} µs"),
    Column("list_per_second", "list 1,000 by label", "{:,.1f}/s"),
    Column("list_cpu_ms", "CPU of one", "{:.1f} ms"),
    Column("stale_percent", "stale right after a write", "{:.1f} %"),
    Column("visible_p50_ms", "visible after, p50", "{:.2f} ms"),
    Column("visible_p99_ms", "p99", "{:.2f} ms"),
)
RATIO_KEYS = ("get_cpu_us", "list_cpu_ms")


def labels(index: int) -> Mapping[str, str]:
    """Every fifth object is one of those listed."""
    return {"group": "listed" if index % LISTED_PART == 0 else "other"}


async def turn(name: str, started: Sequence[str], log: Path) -> Figures:
    """Runs one peer once."""
    async with peer(name, started, log=log) as running:
        event = await running.until("result")
        await running.end()
    own = event["own"]
    visible = [1000 * seconds for seconds in own["visible_seconds"]]
    return {
        "get_per_second": event["get"]["per_second"],
        "get_cpu_us": event["get"]["cpu_us"],
        "list_per_second": event["list"]["per_second"],
        "list_cpu_ms": event["list"]["cpu_us"] / 1000,
        "stale_percent": 100 * own["stale"] / own["writes"],
        "visible_p50_ms": quantile(visible, 0.5),
        "visible_p99_ms": quantile(visible, 0.99),
        "write_p50_ms": 1000 * quantile(own["write_seconds"], 0.5),
    }


async def measure(control_plane: ControlPlane, objects: int, seconds: float, runs: int) -> Report:
    """Runs all peers in turn and reports the medians by peer."""
    listed = len([index for index in range(objects) if index % LISTED_PART == 0])
    flags = [str(control_plane.kubeconfig), "--seconds", str(seconds), "--listed", str(listed)]
    commands = {name: [*command(name), "reads", *flags] for name in NAMES}
    async with connected(control_plane.kubeconfig) as cluster:
        await cluster.create(objects, labels)
    folder = control_plane.folder
    turns = await in_turn(commands, runs, lambda name, _: turn(name, commands[name], folder / f"{name}.log"))
    return Report(
        name="reads",
        about=f"reads of a cache of {objects:,} ConfigMaps of 1 KB, {listed:,} in a list; medians of {runs}",
        settings={"objects": objects, "listed": listed, "seconds": seconds, "runs": runs},
        columns=COLUMNS,
        rows=medians(turns),
        turns=turns,
    )


def benchmark(arguments: Sequence[str]) -> list[Report]:
    """Runs the benchmark with command-line options; returns its reports."""
    parser = argparse.ArgumentParser(
        prog="python -m hack.bench reads", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=3.0, help="of gets, and of lists")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args(arguments)
    with ControlPlane() as control_plane:
        report = asyncio.run(measure(control_plane, options.objects, options.seconds, options.runs))
    return [report, beside(report, OURS, RATIO_KEYS)]
