"""Compares one ConfigMap controller on `kaito.runtime`, controller-runtime and kopf, on one real API server.

Each peer starts with 5,000 ConfigMaps of 1 KB whose `data.done` differs from `data.want`, and sets it by a merge patch.
Ours and controller-runtime have ten workers, kopf its default (no limit). Peers take turns on one API server; medians
are reported.

* wall: from the start of the process to the last object done, observed by a watch of the benchmark.
* CPU, requests, reconciles: from the start of the process until it is idle, which is later, because every patch returns
  as an event. Requests for ConfigMaps are counted by the API server, which counts watches when they end; the peers'
  watches are not included.
* kopf's `on.event` handlers are its cheapest: their exceptions are logged and not retried. `kopf, with retries` uses
  the handlers of kopf's manual (`on.create`, `on.update`, `on.resume`), which are retried like the reconciles of the
  other two; kopf then stores the last handled state in an annotation.

Not measured: the API server's own CPU, which shares the machine.
"""

import argparse
import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from hack.bench.compare import beside
from hack.bench.framework.cluster import Cluster, connected
from hack.bench.framework.peers import CONTROLLER_RUNTIME, KOPF, OURS, command, peer
from hack.bench.report import Column, Figures, Report, in_turn, medians
from hack.envtest import ControlPlane

KOPF_WITH_RETRIES = "kopf, with retries"
MODES = {OURS: (OURS, "copy"), CONTROLLER_RUNTIME: (CONTROLLER_RUNTIME, "copy"), KOPF: (KOPF, "copy")} | {
    KOPF_WITH_RETRIES: (KOPF, "copy-retried")
}
QUIET_WITHIN_SECONDS = 30.0

COLUMNS = (
    Column("wall_seconds", "wall", "{:.1f} s"),
    Column("cpu_seconds", "CPU", "{:.1f} s"),
    Column("peak_rss_mib", "peak RSS", "{:.0f} MiB"),
    Column("patches", "patches", "{:,.0f}"),
    Column("reconciles", "reconciles", "{:,.0f}"),
)
RATIO_KEYS = ("wall_seconds", "cpu_seconds", "peak_rss_mib")


class PatchesMissing(Exception):
    """A peer reached the desired state with fewer patches than objects: the benchmark is wrong."""


async def turn(cluster: Cluster, name: str, started: Sequence[str], objects: int, token: str, log: Path) -> Figures:
    """Runs one peer once."""
    await cluster.reset(objects, token)
    version = await cluster.version()
    await asyncio.sleep(1.0)  # the server counts a request after its response
    before = await cluster.requests()
    begun = time.monotonic()
    async with peer(name, started, log=log) as running:
        await running.alongside(cluster.until_done(objects, token, version))
        wall = time.monotonic() - begun
        cost = await running.quiet(within=QUIET_WITHIN_SECONDS)
        requests = {verb: number - before.get(verb, 0) for verb, number in (await cluster.requests()).items()}
        event = await running.end()
    patches = requests.pop("PATCH", 0)
    requests.pop("WATCH", None)  # that of the benchmark
    if patches < objects:
        raise PatchesMissing(f"{name}: {patches} patches for {objects} objects")
    return {
        "wall_seconds": wall,
        "cpu_seconds": cost.cpu_seconds,
        "peak_rss_mib": cost.peak_rss_mib,
        "patches": patches,
        "other_requests": sum(requests.values()),
        "reconciles": event["reconciles"],
    }


async def measure(control_plane: ControlPlane, names: Sequence[str], objects: int, runs: int) -> Report:
    """Runs all peers in turn and reports the medians by peer."""
    commands = {name: [*command(MODES[name][0]), MODES[name][1], str(control_plane.kubeconfig)] for name in names}
    async with connected(control_plane.kubeconfig) as cluster:
        await cluster.create(objects)

        async def one(name: str, run: int) -> Figures:
            log = control_plane.folder / f"{name}.log"
            return await turn(cluster, name, commands[name], objects, f"{name}-{run}", log)

        turns = await in_turn(commands, runs, one)
    return Report(
        name="framework",
        about=f"{objects:,} ConfigMaps of 1 KB reconciled with one merge patch each; medians of {runs}",
        settings={"objects": objects, "runs": runs},
        columns=COLUMNS,
        rows=medians(turns),
        turns=turns,
    )


def benchmark(arguments: Sequence[str]) -> list[Report]:
    """Runs the benchmark with command-line options; returns its reports."""
    parser = argparse.ArgumentParser(
        prog="python -m hack.bench framework",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--objects", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--peers", nargs="+", choices=MODES, default=list(MODES))
    options = parser.parse_args(arguments)
    with ControlPlane() as control_plane:
        report = asyncio.run(measure(control_plane, options.peers, options.objects, options.runs))
    return [report, beside(report, OURS, RATIO_KEYS)]
