"""Measures N Workspaces, created at once on a real API server: the time until all are InferenceReady, CPU, memory and
requests.

The controller is the real binary in its own process; a driver (`hack.bench.driver`) makes nodes and workloads ready
at once. Reported: wall time, the controller's CPU and memory, its requests by status code and its reconciles.
"""

import argparse
import asyncio
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hack.bench.process import Cost, cost_of
from hack.bench.report import Column, Report
from hack.envtest import ControlPlane
from hack.envtest.control_plane import free_port
from kaito.api import crds
from kaito.api.workspace import Workspace
from kaito.runtime.client import Client, connect
from kaito.runtime.kinds import CustomResourceDefinition
from kaito.runtime.tasks import together

Process = subprocess.Popen[bytes]

BINARIES = Path(sys.executable).parent
TIMEOUT_SECONDS = 300.0
CREATE_CONCURRENCY = 16
COLLECTION = "/apis/kaito.sh/v1beta1/namespaces/default/workspaces"


def workspace(index: int) -> Workspace:
    """A phi-3 Workspace."""
    name = f"phi-{index:04d}"
    return Workspace.model_validate(
        {
            "metadata": {"name": name, "namespace": "default"},
            "resource": {
                "instanceType": "Standard_NC6s_v3",
                "labelSelector": {"matchLabels": {"apps": name}},
            },
            "inference": {"preset": {"name": "phi-3-mini-4k-instruct"}},
        }
    )


async def measure(control_plane: ControlPlane, count: int, node_api: str) -> dict[str, Any]:
    """Run the benchmark on a running control plane."""
    async with connect(control_plane.kubeconfig, field_manager="bench", user_agent="bench/1") as client:
        for definition in crds.manifests():
            await client.apply(CustomResourceDefinition.model_validate(definition))
        await asyncio.sleep(1.0)  # the API server publishes new types within a second
        metrics = free_port()
        controller, driver = _start(control_plane, metrics, node_api)
        try:
            await _until_up(metrics)
            before = cost_of(controller.pid)
            seconds = await _run(client, count)
            after = cost_of(controller.pid)
            scraped = _scrape(metrics)
        finally:
            for process in (controller, driver):
                process.terminate()
                process.wait(30)
    return _report(count, seconds, before, after, scraped)


def _start(control_plane: ControlPlane, metrics: int, node_api: str) -> tuple[Process, Process]:
    """The controller and the driver, logging into the control plane's folder."""
    common = [f"--kubeconfig={control_plane.kubeconfig}", f"--node-api={node_api}", "--health-probe-bind-address=0"]
    flags = [f"--metrics-bind-address=127.0.0.1:{metrics}", "--leader-elect=false", "--webhook=false"]
    with (control_plane.folder / "controller.log").open("wb") as log:
        controller = subprocess.Popen([str(BINARIES / "workspace-controller"), *common, *flags], stdout=log, stderr=log)
        driver = [sys.executable, "-m", "hack.bench.driver", str(control_plane.kubeconfig), node_api]
        return controller, subprocess.Popen(driver, stderr=log)


async def _run(client: Client, count: int) -> float:
    """Create all Workspaces and wait for them; returns the seconds since the first create."""
    slots = asyncio.Semaphore(CREATE_CONCURRENCY)

    async def create(index: int) -> None:
        async with slots:
            await client.create(workspace(index))

    started = time.monotonic()
    await together(*(create(index) for index in range(count)))
    while True:
        found = await client.raw("GET", COLLECTION, query={"resourceVersion": "0"})  # served by the watch cache
        ready = sum(_is_inference_ready(item) for item in found["items"])
        if ready == count:
            return time.monotonic() - started
        if time.monotonic() - started > TIMEOUT_SECONDS:
            message = f"only {ready} of {count} became ready within {TIMEOUT_SECONDS:.0f} s"
            raise TimeoutError(message)
        await asyncio.sleep(0.5)


def _is_inference_ready(item: dict[str, Any]) -> bool:
    conditions = item.get("status", {}).get("conditions", [])
    return any(c["type"] == "InferenceReady" and c["status"] == "True" for c in conditions)


async def _until_up(port: int) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                if 'controller="workspace"' in await asyncio.to_thread(_fetch, port):
                    break
            except OSError:
                pass
            await asyncio.sleep(0.2)
    await asyncio.sleep(2.0)  # caches have synced; the driver too


def _fetch(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return str(answer.read().decode())


def _scrape(port: int) -> dict[str, float]:
    text = _fetch(port)
    wanted = ("rest_client_requests_total", "controller_runtime_reconcile_total")
    return {
        match.group(1): float(match.group(2))
        for match in re.finditer(r"^(\S+?(?:\{.*?\})?) (\S+)$", text, re.MULTILINE)
        if match.group(1).startswith(wanted) and float(match.group(2))
    }


def _report(count: int, seconds: float, before: Cost, after: Cost, scraped: dict[str, float]) -> dict[str, Any]:
    codes: dict[str, int] = {}
    for series, value in scraped.items():
        code = re.search(r'code="(\d+)"', series)
        if code:
            codes[code.group(1)] = codes.get(code.group(1), 0) + int(value)
    reconciles = sum(
        value for series, value in scraped.items() if "reconcile_total" in series and 'controller="workspace"' in series
    )
    cpu = after.cpu_seconds - before.cpu_seconds
    return {
        "wall_seconds": round(seconds, 2),
        "controller_cpu_ms_per_workspace": round(1000 * cpu / count, 1),
        "controller_peak_rss_mib": round(after.peak_rss_mib, 1),
        "controller_rss_before_mib": round(before.rss_mib, 1),
        "conflicts": codes.get("409", 0),
        "requests_per_workspace": round(sum(codes.values()) / count, 1),
        "reconciles_per_workspace": round(reconciles / count, 1),
    }


COLUMNS = (
    Column("wall_seconds", "all InferenceReady after", "{:.1f} s"),
    Column("controller_cpu_ms_per_workspace", "controller CPU per Workspace", "{:.1f} ms"),
    Column("controller_peak_rss_mib", "controller peak RSS", "{:.0f} MiB"),
    Column("requests_per_workspace", "requests per Workspace", "{:.1f}"),
    Column("reconciles_per_workspace", "reconciles per Workspace", "{:.1f}"),
    Column("conflicts", "409", "{:,}"),
)


def benchmark(arguments: Sequence[str]) -> list[Report]:
    """Run each count on a separate control plane."""
    parser = argparse.ArgumentParser(
        prog="python -m hack.bench workspaces",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--count", type=int, nargs="+", default=[50, 300])
    parser.add_argument("--node-api", choices=("machine", "nodeclaim"), default="machine")
    options = parser.parse_args(arguments)
    rows: dict[str, dict[str, Any]] = {}
    for count in options.count:
        with ControlPlane() as control_plane:
            rows[f"{count:,} Workspaces"] = asyncio.run(measure(control_plane, count, options.node_api))
    return [
        Report(
            name="workspaces",
            about="Workspaces created at once, until all of them are InferenceReady",
            settings={"counts": options.count, "node_api": options.node_api},
            columns=COLUMNS,
            rows=rows,
        )
    ]
