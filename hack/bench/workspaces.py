"""Measures N Workspaces, created at once on a real API server: the time until all are InferenceReady, CPU, memory and
requests.

The controller is the real program in its own process, with its admission webhook; a driver (`hack.bench.driver`) makes
nodes and workloads ready at once. The Workspaces are watched, not polled. Reported: wall time, the controller's CPU and
memory, the CPU of the API server, the controller's requests and its reconciles. Requests and CPU are counted until the
controller is idle, so that Events which are sent late count as well.

With --baseline, the controller of an earlier commit takes turns with that of this tree, each turn on a new control
plane; the ratios are those of the rows of one round. With --by-kind, the requests are counted by verb and resource in
the audit log of the API server, whose CPU is then not comparable.
"""

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hack.bench.audit import AuditLog, requests_per_object, requests_report
from hack.bench.compare import ROOT, checked_out, ratios, ratios_report
from hack.bench.definitions import install_definitions
from hack.bench.process import cost_of
from hack.bench.report import Column, Figures, Report, in_turn, medians
from hack.envtest import ControlPlane
from hack.envtest.control_plane import free_port
from kaito.api.workspace import Workspace
from kaito.local.admission import LocalWebhook
from kaito.runtime.client import Client, connect
from kaito.runtime.kinds import ValidatingWebhookConfiguration
from kaito.runtime.tasks import together

Process = subprocess.Popen[bytes]

TIMEOUT_SECONDS = 300.0
IDLE_SECONDS = 2.0
"""The controller is idle when it sent no request for this long."""
CREATE_CONCURRENCY = 16
WATCH = "/apis/kaito.sh/v1beta1/namespaces/default/workspaces?watch=true&allowWatchBookmarks=false"


class _Condition(msgspec.Struct):
    type: str
    status: str


class _Status(msgspec.Struct):
    conditions: list[_Condition] = []


class _Metadata(msgspec.Struct):
    name: str


class _Workspace(msgspec.Struct):
    metadata: _Metadata
    status: _Status = msgspec.field(default_factory=_Status)


class _Event(msgspec.Struct):
    type: str
    object: _Workspace


@dataclass(frozen=True, slots=True)
class Peer:
    """One form of the controller."""

    tree: Path
    defaulting: bool = True
    """Whether its webhook adds the finalizer."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What one turn does."""

    count: int
    node_api: str
    webhook: bool = True
    by_kind: bool = False


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


async def turn(peer: Peer, settings: Settings) -> Figures:
    """Runs one controller on a new control plane."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kaito-bench-")))
        audit = AuditLog(folder) if settings.by_kind else None
        arguments = audit.arguments if audit else ()
        control_plane = stack.enter_context(ControlPlane(folder / "plane", extra_arguments=arguments))
        await install_definitions(control_plane)
        async with connect(control_plane.kubeconfig, field_manager="bench", user_agent="bench/1") as client:
            webhook = LocalWebhook(folder / "webhook", free_port()) if settings.webhook else None
            with _programs(control_plane, peer, settings, webhook) as (controller, metrics):
                await _until_up(metrics)
                if webhook is not None:
                    for configuration in webhook.configurations():
                        if peer.defaulting or isinstance(configuration, ValidatingWebhookConfiguration):
                            await client.create(configuration)
                    await asyncio.sleep(1.0)  # the API server calls new webhooks within a second
                figures = await _measure(client, control_plane, controller.pid, metrics, settings.count)
        kinds: Mapping[str, int] = audit.requests("workspace-controller") if audit else {}
        return {**figures, **requests_per_object(kinds, settings.count)}


async def _measure(
    client: Client, control_plane: ControlPlane, pid: int, metrics: int, count: int
) -> dict[str, float | int | str | None]:
    server = control_plane.api_server.pid if control_plane.api_server is not None else pid
    before, server_before = cost_of(pid), cost_of(server)
    requests_before = sum(_codes(_scrape(metrics)).values())
    seconds = await _run(client, count)
    at_end = cost_of(pid)
    scraped = await _until_idle(metrics)
    after, server_after = cost_of(pid), cost_of(server)
    codes = _codes(scraped)
    reconciles = sum(
        value for series, value in scraped.items() if "reconcile_total" in series and 'controller="workspace"' in series
    )
    return {
        "wall_seconds": round(seconds, 2),
        "cpu_ms_per_workspace": round(1000 * (after.cpu_seconds - before.cpu_seconds) / count, 1),
        "cpu_ms_per_workspace_until_ready": round(1000 * (at_end.cpu_seconds - before.cpu_seconds) / count, 1),
        "server_cpu_ms_per_workspace": round(1000 * (server_after.cpu_seconds - server_before.cpu_seconds) / count, 1),
        "peak_rss_mib": round(after.peak_rss_mib, 1),
        "rss_before_mib": round(before.rss_mib, 1),
        "start_cpu_seconds": round(before.cpu_seconds, 2),
        "conflicts": codes.get("409", 0),
        "requests_per_workspace": round((sum(codes.values()) - requests_before) / count, 2),
        "reconciles_per_workspace": round(reconciles / count, 1),
    }


@contextmanager
def _programs(
    control_plane: ControlPlane, peer: Peer, settings: Settings, webhook: LocalWebhook | None
) -> Generator[tuple[Process, int]]:
    """The controller and the driver, logging into the control plane's folder; yields the port of the metrics."""
    metrics = free_port()
    command = [
        sys.executable,
        str(peer.tree / "cmd" / "workspace-controller"),
        f"--kubeconfig={control_plane.kubeconfig}",
    ]
    command += [f"--node-api={settings.node_api}", "--leader-elect=false"]
    command += ["--health-probe-bind-address=0", f"--metrics-bind-address=127.0.0.1:{metrics}"]
    command += webhook.flags() if webhook is not None else ["--webhook=false"]
    driver = [sys.executable, "-m", "hack.bench.driver", str(control_plane.kubeconfig), settings.node_api]
    with ExitStack() as stack:
        log = stack.enter_context((control_plane.folder / "controller.log").open("wb"))
        processes: list[Process] = []
        try:
            for line, tree in ((command, peer.tree), (driver, ROOT)):
                env = {**os.environ, "PYTHONPATH": str(tree)}
                processes.append(subprocess.Popen(line, stdout=log, stderr=log, env=env, cwd=tree))
            yield processes[0], metrics
        finally:
            for process in processes:
                process.terminate()
                process.wait(30)


async def _run(client: Client, count: int) -> float:
    """Creates all Workspaces and watches them; returns the seconds from the first create until all are
    InferenceReady."""
    slots = asyncio.Semaphore(CREATE_CONCURRENCY)

    async def create(index: int) -> None:
        async with slots:
            await client.create(workspace(index))

    watching = asyncio.Event()

    async def create_all() -> float:
        await watching.wait()
        started = time.monotonic()
        await together(*(create(index) for index in range(count)))
        return started

    started, ended = await together(create_all(), _until_ready(client, count, watching))
    return ended - started


async def _until_ready(client: Client, count: int, watching: asyncio.Event) -> float:
    """Watches until that many Workspaces are InferenceReady; returns the time.

    Raises:
        TimeoutError: they are not within `TIMEOUT_SECONDS`.
    """
    ready: set[str] = set()
    rest = b""
    decoder = msgspec.json.Decoder(_Event)
    async with asyncio.timeout(TIMEOUT_SECONDS), client.transport.stream("GET", WATCH) as reply:
        watching.set()
        async for chunk in reply.chunks():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                found = decoder.decode(line).object
                if any(c.type == "InferenceReady" and c.status == "True" for c in found.status.conditions):
                    ready.add(found.metadata.name)
            if len(ready) == count:
                return time.monotonic()
    message = f"the watch ended with {len(ready)} of {count} ready"
    raise TimeoutError(message)


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


async def _until_idle(port: int) -> dict[str, float]:
    """Waits until the controller sends no more requests; returns its figures."""
    last, since = _scrape(port), time.monotonic()
    while time.monotonic() - since < IDLE_SECONDS:
        await asyncio.sleep(0.5)
        found = _scrape(port)
        if sum(_codes(found).values()) != sum(_codes(last).values()):
            last, since = found, time.monotonic()
    return last


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


def _codes(scraped: Mapping[str, float]) -> dict[str, int]:
    """The numbers of requests by status code."""
    codes: dict[str, int] = {}
    for series, value in scraped.items():
        code = re.search(r'code="(\d+)"', series)
        if code:
            codes[code.group(1)] = codes.get(code.group(1), 0) + int(value)
    return codes


COLUMNS = (
    Column("wall_seconds", "all InferenceReady after", "{:.1f} s"),
    Column("cpu_ms_per_workspace", "controller CPU per Workspace", "{:.1f} ms"),
    Column("server_cpu_ms_per_workspace", "API server CPU per Workspace", "{:.1f} ms"),
    Column("peak_rss_mib", "controller peak RSS", "{:.0f} MiB"),
    Column("requests_per_workspace", "requests per Workspace", "{:.1f}"),
    Column("reconciles_per_workspace", "reconciles per Workspace", "{:.1f}"),
    Column("conflicts", "409", "{:,}"),
)
RATIO_COLUMNS = tuple(column for column in COLUMNS if column.key not in {"conflicts", "reconciles_per_workspace"})


def benchmark(arguments: Sequence[str]) -> list[Report]:
    """Runs each count, with the earlier commit and this tree in turn."""
    parser = argparse.ArgumentParser(
        prog="python -m hack.bench workspaces",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--count", type=int, nargs="+", default=[50, 300])
    parser.add_argument("--node-api", choices=("machine", "nodeclaim"), default="machine")
    parser.add_argument("--runs", type=int, default=1, help="rounds for each count")
    parser.add_argument("--baseline", default="", help="also measure the controller of this commit")
    parser.add_argument("--webhook", choices=("on", "off"), default="on", help="the controller's admission webhook")
    parser.add_argument("--by-kind", action="store_true", help="count requests by verb and resource")
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        peers = {"this tree": Peer(ROOT)}
        baseline = f"commit {options.baseline}"
        if options.baseline:
            tree = stack.enter_context(checked_out(options.baseline))
            defaulting = "finalizer=" in (tree / "kaito/workspace/admission.py").read_text()
            peers = {baseline: Peer(tree, defaulting=defaulting), **peers}
        return _reports(options, peers, baseline)


def _reports(options: argparse.Namespace, peers: Mapping[str, Peer], baseline: str) -> list[Report]:
    rows: dict[str, Figures] = {}
    compared: dict[str, Figures] = {}
    all_turns: dict[str, Sequence[Figures]] = {}
    for count in options.count:
        settings = Settings(count, options.node_api, webhook=options.webhook == "on", by_kind=options.by_kind)

        async def one(name: str, _run: int, settings: Settings = settings) -> Figures:
            return await turn(peers[name], settings)

        turns = asyncio.run(in_turn(peers, options.runs, one))
        for name, row in medians(turns).items():
            rows[f"{count:,} Workspaces, {name}"] = row
            all_turns[f"{count:,} Workspaces, {name}"] = turns[name]
        if baseline in turns:
            compared[f"{count:,} Workspaces"] = ratios(turns, "this tree", baseline, RATIO_COLUMNS)
    report = Report(
        name="workspaces",
        about="Workspaces created at once, until all of them are InferenceReady",
        settings=dict(vars(options)),
        columns=COLUMNS,
        rows=rows,
        turns=all_turns,
    )
    reports = [report]
    if options.by_kind:
        about = "requests of the controller for each Workspace, by verb and resource"
        reports.append(requests_report(report, about))
    if compared:
        reports.append(ratios_report(report, baseline, RATIO_COLUMNS, compared))
    return reports
