"""Measures N NodeClaims, created at once until all are Ready and deleted at once until their pools are deleted, with
this tree and an earlier commit.

The gpu-provisioner of this tree and that of an earlier commit (checked out into a temporary folder) take turns in one
run, on one real kube-apiserver with etcd and on the ARM simulator of this tree at 60 times the speed: a pool takes 5 s,
its deletion 2 s. Both run with default flags. The request limits of AKS hold in the simulator and refill on its clock.

Reported are wall times, CPU and memory of the provisioner's process, and its ARM requests by kind. The ratios are those
of the rows of one round; their spread is over the rounds. With --by-kind, the requests to the API server until all are
Ready are counted by verb and resource in its audit log.
"""

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from hack.bench.audit import AuditLog, requests_per_object, requests_report
from hack.bench.compare import BASELINE, ROOT, checked_out, ratios, ratios_report
from hack.bench.definitions import install_definitions
from hack.bench.process import cost_of
from hack.bench.report import Column, Figures, Report, in_turn, medians
from hack.envtest import ControlPlane
from hack.envtest.control_plane import free_port
from kaito.api.karpenter import NodeClaim
from kaito.local.cloud import CLOUD_ENVIRONMENT
from kaito.runtime.client import Client, connect
from kaito.runtime.tasks import together

SPEED = 60
PROVISION_SECONDS, DELETE_SECONDS, RETRY_AFTER_SECONDS = 300, 120, 10
"""Latencies of the baseline's simulator, under which the baseline was measured before."""

TIMEOUT_SECONDS = 600.0
CREATE_CONCURRENCY = 16
COLLECTION = "/apis/karpenter.sh/v1/nodeclaims"


@dataclass(frozen=True, slots=True)
class Peer:
    """One form of the provisioner."""

    name: str
    tree: Path
    flags: Sequence[str] = ()


def claim(index: int) -> NodeClaim:
    """One NodeClaim as the workspace controller writes it."""
    return NodeClaim.model_validate(
        {
            "metadata": {
                "name": f"ws{index:04d}",
                "labels": {
                    "kaito.sh/workspace": f"ws{index:04d}",
                    "kaito.sh/workspacenamespace": "default",
                    "karpenter.sh/nodepool": "kaito",
                },
            },
            "spec": {
                "nodeClassRef": {"group": "kaito.sh", "kind": "KaitoNodeClass", "name": "default"},
                "requirements": [
                    {
                        "key": "node.kubernetes.io/instance-type",
                        "operator": "In",
                        "values": ["Standard_NC24ads_A100_v4"],
                    },
                    {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]},
                ],
                "taints": [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}],
                "resources": {"requests": {"storage": "120Gi"}},
            },
        }
    )


async def turn(control_plane: ControlPlane, peer: Peer, count: int, audit: AuditLog | None = None) -> Figures:
    """One life of N claims with a fresh simulator and a fresh provisioner."""
    async with connect(control_plane.kubeconfig, field_manager="bench", user_agent="bench/1") as client:
        async with _simulator(control_plane) as arm, _provisioner(control_plane, peer, arm) as (process, metrics):
            before = cost_of(process.pid)
            audited = _audited(audit)
            started = time.monotonic()
            await together(*(_create(client, index, count) for index in range(CREATE_CONCURRENCY)))
            ready = await _until(client, started, lambda items: sum(map(_is_ready, items)) == count)
            made = cost_of(process.pid)
            calls = await _calls(arm)
            requests, conflicts = await _kubernetes_requests(metrics)
            audited = _audited(audit) - audited
            started = time.monotonic()
            await client.raw("DELETE", COLLECTION)
            deleted = await _until(client, started, lambda items: not items)
            ended = cost_of(process.pid)
            all_calls = await _calls(arm)
        await _until_no_nodes(client)
    deletion = all_calls - calls
    return {
        "ready_seconds": round(ready, 2),
        "ready_cpu_seconds": round(made.cpu_seconds - before.cpu_seconds, 2),
        "deleted_seconds": round(deleted, 2),
        "deleted_cpu_seconds": round(ended.cpu_seconds - made.cpu_seconds, 2),
        "peak_rss_mib": round(ended.peak_rss_mib, 1),
        "ready_arm_calls": sum(calls.values()),
        "deleted_arm_calls": sum(deletion.values()),
        "requests_per_claim": round(requests / count, 1),
        "conflicts": conflicts,
        "start_cpu_seconds": round(before.cpu_seconds, 2),
        **{f"ready {kind}": number for kind, number in sorted(calls.items())},
        **{f"deleted {kind}": number for kind, number in sorted(deletion.items())},
        **requests_per_object(audited, count),
    }


def _audited(audit: AuditLog | None) -> Counter[str]:
    """Requests of the provisioner so far, by verb and resource."""
    return audit.requests("gpu-provisioner") if audit is not None else Counter()


async def _create(client: Client, first: int, count: int) -> None:
    for index in range(first, count, CREATE_CONCURRENCY):
        await client.create(claim(index))


async def _until(client: Client, started: float, holds: Callable[[list[dict[str, Any]]], bool]) -> float:
    """Seconds from the start until the claims satisfy a condition."""
    while True:
        found = await client.raw("GET", COLLECTION, query={"resourceVersion": "0"})  # served by the watch cache
        if holds(found["items"]):
            return time.monotonic() - started
        if time.monotonic() - started > TIMEOUT_SECONDS:
            message = f"not within {TIMEOUT_SECONDS:.0f} s; {sum(map(_is_ready, found['items']))} claims are ready"
            raise TimeoutError(message)
        await asyncio.sleep(0.25)


async def _until_no_nodes(client: Client) -> None:
    """Empty the cluster for the next turn."""
    await client.raw("DELETE", "/api/v1/nodes")
    async with asyncio.timeout(60):
        while True:
            if not (await client.raw("GET", "/api/v1/nodes"))["items"]:
                return
            await asyncio.sleep(0.5)


def _is_ready(item: Mapping[str, Any]) -> bool:
    conditions = item.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


@asynccontextmanager
async def _simulator(control_plane: ControlPlane) -> AsyncGenerator[str]:
    port = free_port()
    command = [sys.executable, "-m", "kaito.cloud.azure.simulator", f"--port={port}", f"--speed={SPEED}"]
    command += [f"--kubeconfig={control_plane.kubeconfig}", f"--provision-seconds={PROVISION_SECONDS}"]
    command += [f"--delete-seconds={DELETE_SECONDS}", f"--retry-after-seconds={RETRY_AFTER_SECONDS}"]
    url = f"http://127.0.0.1:{port}"
    with _process(control_plane, "simulator", command, ROOT):
        await _until_answers(f"{url}/__admin/healthz", "ok")
        yield url


@asynccontextmanager
async def _provisioner(
    control_plane: ControlPlane, peer: Peer, arm: str
) -> AsyncGenerator[tuple["subprocess.Popen[bytes]", str]]:
    port = free_port()
    command = [sys.executable, str(peer.tree / "cmd" / "gpu-provisioner"), f"--kubeconfig={control_plane.kubeconfig}"]
    command += ["--node-api=nodeclaim", "--leader-elect=false", "--health-probe-bind-address=0"]
    command += [f"--metrics-bind-address=127.0.0.1:{port}", "--azure-credential=fake", f"--arm-endpoint={arm}"]
    metrics = f"http://127.0.0.1:{port}/metrics"
    with _process(control_plane, "gpu-provisioner", [*command, *peer.flags], peer.tree) as process:
        await _until_answers(metrics, 'controller="nodeclaim"')
        await asyncio.sleep(2.0)  # its caches have synced
        yield process, metrics


@contextmanager
def _process(
    control_plane: ControlPlane, name: str, command: Sequence[str], tree: Path
) -> Generator["subprocess.Popen[bytes]"]:
    log = control_plane.folder / f"bench-{name}.log"
    with log.open("ab") as output:
        env = {**os.environ, **CLOUD_ENVIRONMENT, "PYTHONPATH": str(tree)}
        process = subprocess.Popen(command, stdout=output, stderr=output, env=env, cwd=tree)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


async def _until_answers(url: str, text: str) -> None:
    async with asyncio.timeout(60), aiohttp.ClientSession() as http:
        while True:
            try:
                async with http.get(url) as answer:
                    if text in await answer.text():
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)


async def _calls(arm: str) -> Counter[str]:
    """ARM requests so far, by kind."""
    async with aiohttp.ClientSession() as http, http.get(f"{arm}/__admin/requests") as answer:
        log: list[dict[str, Any]] = await answer.json()
    return Counter(_kind(entry) for entry in log)


def _kind(entry: Mapping[str, Any]) -> str:
    path = str(entry["path"]).lower()
    if "/operation" in path:
        return "GET operation"
    if path.endswith("/agentpools"):
        return "LIST pools"
    if "/microsoft.compute/" in path:
        return "GET compute"
    code = " (429)" if entry["status"] == 429 else " (404)" if entry["status"] == 404 else ""
    return f"{entry['method']} pool{code}"


async def _kubernetes_requests(metrics: str) -> tuple[int, int]:
    """Requests to the API server and conflicts among them, of the provisioner so far."""
    async with aiohttp.ClientSession() as http, http.get(metrics) as answer:
        text = await answer.text()
    codes: Counter[str] = Counter()
    for code, value in re.findall(r'^rest_client_requests_total\{[^}]*code="(\d+)"[^}]*\} (\S+)$', text, re.MULTILINE):
        codes[code] += int(float(value))
    return sum(codes.values()), codes["409"]


COLUMNS = (
    Column("ready_seconds", "all Ready after", "{:.1f} s"),
    Column("ready_cpu_seconds", "CPU", "{:.1f} s"),
    Column("ready_calls", "ARM requests"),
    Column("deleted_seconds", "all deleted after", "{:.1f} s"),
    Column("deleted_cpu_seconds", "CPU", "{:.1f} s"),
    Column("deleted_calls", "ARM requests"),
    Column("peak_rss_mib", "peak RSS", "{:.0f} MiB"),
    Column("requests_per_claim", "Kubernetes requests per claim", "{:.1f}"),
    Column("conflicts", "409", "{:,.0f}"),
)
RATIO_COLUMNS = (
    Column("ready_seconds", "all Ready after"),
    Column("ready_cpu_seconds", "CPU"),
    Column("deleted_seconds", "all deleted after"),
    Column("deleted_cpu_seconds", "CPU"),
    Column("peak_rss_mib", "peak RSS"),
    Column("ready_arm_calls", "ARM requests"),
)


def with_calls(row: Figures) -> Figures:
    """The row with its ARM requests by kind as text."""

    def text(phase: str) -> str:
        kinds = [f"{value:.0f} {key.removeprefix(phase)}" for key, value in row.items() if key.startswith(phase)]
        return ", ".join(kinds)

    return {**row, "ready_calls": text("ready "), "deleted_calls": text("deleted ")}


def benchmark(arguments: Sequence[str]) -> list[Report]:
    """Runs every peer for each count, in turn."""
    parser = argparse.ArgumentParser(
        prog="python -m hack.bench provisioner",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--count", type=int, nargs="+", default=[100, 200])
    parser.add_argument("--runs", type=int, default=2, help="rounds for each count")
    parser.add_argument("--baseline", default=BASELINE, help="the commit to compare with")
    parser.add_argument("--by-kind", action="store_true", help="count Kubernetes requests by verb and resource")
    options = parser.parse_args(arguments)
    baseline = f"commit {options.baseline}"
    rows: dict[str, Figures] = {}
    compared: dict[str, Figures] = {}
    all_turns: dict[str, Sequence[Figures]] = {}
    with ExitStack() as stack:
        tree = stack.enter_context(checked_out(options.baseline))
        audit = None
        if options.by_kind:
            audit = AuditLog(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kaito-bench-"))))
        control_plane = stack.enter_context(ControlPlane(extra_arguments=audit.arguments if audit else ()))
        peers = {
            peer.name: peer
            for peer in (
                Peer(baseline, tree),
                Peer("this tree", ROOT),
            )
        }
        asyncio.run(install_definitions(control_plane))
        for count in options.count:

            async def one(name: str, _run: int, count: int = count) -> Figures:
                return await turn(control_plane, peers[name], count, audit)

            turns = asyncio.run(in_turn(peers, options.runs, one))
            for name, row in medians(turns).items():
                rows[f"{count} claims, {name}"] = with_calls(row)
                all_turns[f"{count} claims, {name}"] = turns[name]
                if name != baseline:
                    compared[f"{count} claims, {name}"] = ratios(turns, name, baseline, RATIO_COLUMNS)
    settings = {"counts": options.count, "runs": options.runs, "baseline": options.baseline, "speed": SPEED}
    report = Report(
        name="provisioner",
        about="NodeClaims created at once until all are Ready, then deleted at once until all are deleted",
        settings=settings,
        columns=COLUMNS,
        rows=rows,
        turns=all_turns,
    )
    reports = [report, ratios_report(report, baseline, RATIO_COLUMNS, compared)]
    if options.by_kind:
        about = "requests to the API server for each claim until all are Ready, by verb and resource"
        reports.append(requests_report(report, about))
    return reports
