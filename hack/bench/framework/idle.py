"""Measures the idle cost of an operator with ten informers for one minute.

Ten controllers of ten built-in kinds have an empty reconcile function and the features of a deployed operator: the
lease (renewed every two seconds), probes and metrics (without requests). There are forty objects of each kind, which do
not change. The peers run at the same time on one API server.

* CPU: percent of one core, from ten seconds after the caches are full.
* RSS: at the end of the minute. Peak RSS: since the start.

Not measured: what happens every few minutes (watches are reopened every five to ten), probes and scrapes, which depend
on the installation. kopf has no lease and no cache; it is left out.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

from hack.bench.compare import beside
from hack.bench.framework.cluster import Cluster, connected, each
from hack.bench.framework.peers import CONTROLLER_RUNTIME, OURS, Peer, command, peer
from hack.bench.report import Column, Figures, Report, medians
from hack.envtest import ControlPlane

NAMES = (OURS, CONTROLLER_RUNTIME)
OBJECTS = 40
WARM_SECONDS = 10.0

_LABELS = {"app": "idle"}
_POD = {"containers": [{"name": "main", "image": "registry.example.com/main:1"}]}
_TEMPLATE = {"metadata": {"labels": _LABELS}, "spec": _POD}
_WORKLOAD = {"selector": {"matchLabels": _LABELS}, "template": _TEMPLATE}
_CORE, _APPS, _BATCH = ("/api/v1", "v1"), ("/apis/apps/v1", "apps/v1"), ("/apis/batch/v1", "batch/v1")

KINDS: dict[str, tuple[tuple[str, str], str, dict[str, Any]]] = {
    "ConfigMap": (_CORE, "configmaps", {"data": {"key": "value" * 20}}),
    "Secret": (_CORE, "secrets", {"stringData": {"key": "value" * 20}}),
    "Service": (_CORE, "services", {"spec": {"clusterIP": "None", "selector": _LABELS}}),
    "ServiceAccount": (_CORE, "serviceaccounts", {}),
    "Pod": (_CORE, "pods", {"spec": _POD}),
    "PersistentVolumeClaim": (
        _CORE,
        "persistentvolumeclaims",
        {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}},
    ),
    "Deployment": (_APPS, "deployments", {"spec": _WORKLOAD}),
    "StatefulSet": (_APPS, "statefulsets", {"spec": _WORKLOAD | {"serviceName": "idle"}}),
    "DaemonSet": (_APPS, "daemonsets", {"spec": _WORKLOAD}),
    "Job": (_BATCH, "jobs", {"spec": {"template": {"spec": _POD | {"restartPolicy": "Never"}}}}),
}
"""Kind, path, and the smallest valid object."""

COLUMNS = (
    Column("cpu_percent", "CPU", "{:.2f} % of a core"),
    Column("rss_mib", "RSS", "{:.0f} MiB"),
    Column("peak_rss_mib", "peak RSS", "{:.0f} MiB"),
)
RATIO_KEYS = ("cpu_percent", "rss_mib")


async def create(cluster: Cluster) -> None:
    """Creates the objects that the peers cache."""
    for kind, ((root, version), plural, body) in KINDS.items():

        async def one(
            index: int,
            kind: str = kind,
            version: str = version,
            path: str = f"{root}/namespaces/default/{plural}",
            body: dict[str, Any] = body,
        ) -> None:
            metadata = {"name": f"idle-{index:03d}", "labels": _LABELS}
            await cluster.post(path, {"apiVersion": version, "kind": kind, "metadata": metadata, **body})

        await each(OBJECTS, one)


async def turn(control_plane: ControlPlane, seconds: float) -> dict[str, Figures]:
    """Runs all peers at the same time; returns the figures of each."""
    async with AsyncExitStack() as stack:
        running: dict[str, Peer] = {}
        for name in NAMES:
            started = [*command(name), "idle", str(control_plane.kubeconfig)]
            log = control_plane.folder / f"{name}.log"
            running[name] = await stack.enter_async_context(peer(name, started, log=log))
        for one in running.values():
            await one.until("synced")
        await asyncio.sleep(min(WARM_SECONDS, seconds))
        before = {name: one.cost for name, one in running.items()}
        await asyncio.sleep(seconds)
        after = {name: one.cost for name, one in running.items()}
        for one in running.values():
            await one.end()
    return {
        name: {
            "cpu_percent": 100 * (cost.cpu_seconds - before[name].cpu_seconds) / seconds,
            "rss_mib": cost.rss_mib,
            "peak_rss_mib": cost.peak_rss_mib,
        }
        for name, cost in after.items()
    }


async def measure(control_plane: ControlPlane, seconds: float, runs: int) -> Report:
    """Runs all turns and reports the medians by peer."""
    turns: dict[str, list[Figures]] = {name: [] for name in NAMES}
    async with connected(control_plane.kubeconfig) as cluster:
        await create(cluster)
    for run in range(runs):
        for name, figures in (await turn(control_plane, seconds)).items():
            turns[name].append(figures)
            print(f"  {name} {run + 1}/{runs}: {figures}", file=sys.stderr, flush=True)
    return Report(
        name="idle",
        about=f"an operator with ten informers over {OBJECTS * len(KINDS)} objects and nothing to do, "
        f"{seconds:g} s; medians of {runs}",
        settings={"seconds": seconds, "runs": runs, "objects": OBJECTS * len(KINDS)},
        columns=COLUMNS,
        rows=medians(turns),
        turns=turns,
    )


def benchmark(arguments: Sequence[str]) -> list[Report]:
    """Runs the benchmark with command-line options; returns its reports."""
    parser = argparse.ArgumentParser(
        prog="python -m hack.bench idle", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--runs", type=int, default=1)
    options = parser.parse_args(arguments)
    with ControlPlane() as control_plane:
        report = asyncio.run(measure(control_plane, options.seconds, options.runs))
    return [report, beside(report, OURS, RATIO_KEYS)]
