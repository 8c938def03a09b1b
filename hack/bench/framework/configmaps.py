"""The same ConfigMap controller on `kaito.runtime`, on controller-runtime and on kopf, against one real API server.

Each peer starts with 5,000 ConfigMaps of 1 KB whose `data.done` differs from `data.want`, and sets it by a merge patch.
Ours and controller-runtime have ten workers, kopf its default (no limit). Peers take turns on one API server; reported
are medians.

* wall: from the start of the process to the last object done, observed by a watch of the benchmark.
* CPU, requests, reconciles: from the start of the process until it has nothing more to do, which is later: every patch
  comes back as an event. Requests for ConfigMaps are those the API server counts; watches count when they end, so the
  peers' own are not among them.
* kopf's `on.event` handlers are its lightest: what they raise is logged and dropped. `kopf, with retries` has the
  handlers that kopf's manual begins with (`on.create`, `on.update`, `on.resume`), which are tried again when they
  raise, as reconciles are on the other two; kopf then keeps the last state it handled in an annotation.

Not measured: the API server's own CPU, which shares the machine.
"""

import argparse
import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

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


class PatchesMissing(Exception):
    """A peer reached the desired state with fewer patches than objects: the benchmark is wrong."""


async def turn(cluster: Cluster, name: str, started: Sequence[str], objects: int, token: str, log: Path) -> Figures:
    """One run of one peer."""
    await cluster.reset(objects, token)
    version = await cluster.version()
    await asyncio.sleep(1.0)  # the server counts a request after it has answered
    before = await cluster.requests()
    begun = time.monotonic()
    async with peer(name, started, log=log) as running:
        await running.alongside(cluster.until_done(objects, token, version))
        wall = time.monotonic() - begun
        cost = await running.quiet(within=QUIET_WITHIN_SECONDS)
        requests = {verb: number - before.get(verb, 0) for verb, number in (await cluster.requests()).items()}
        said = await running.end()
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
        "reconciles": said["reconciles"],
    }


async def measure(control_plane: ControlPlane, names: Sequence[str], objects: int, runs: int) -> Report:
    """All turns, and their medians by peer."""
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
    """Run it as asked."""
    parser = argparse.ArgumentParser(
        prog="python -m hack.bench framework",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--objects", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--peers", nargs="+", choices=MODES, default=list(MODES))
    asked = parser.parse_args(arguments)
    with ControlPlane() as control_plane:
        return [asyncio.run(measure(control_plane, asked.peers, asked.objects, asked.runs))]
