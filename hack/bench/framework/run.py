"""Turns of the framework benchmark: reset the objects, start a peer, wait until the last object is as wanted."""

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

from hack.bench.process import cost_of
from hack.envtest import ControlPlane
from hack.envtest.binaries import cache_directory

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PAYLOAD = "x" * 900
CREATE_CONCURRENCY = 32
GIVE_UP_SECONDS = 300.0
KOPF_REQUIREMENT = "kopf==1.45.*"
LABEL = {"bench": "yes"}


class Cluster:
    """The objects of the benchmark on a running control plane, over plain HTTP requests."""

    def __init__(self, control_plane: ControlPlane, session: aiohttp.ClientSession) -> None:
        self._url = f"{control_plane.url}/api/v1/namespaces/default/configmaps"
        self._session = session

    async def create(self, count: int) -> None:
        """Create the objects, none of them as wanted."""
        await self._each(count, self._create)

    async def reset(self, count: int, token: str) -> None:
        """Give every object a new `want`."""

        async def patch(index: int) -> None:
            body = json.dumps({"data": {"want": token}})
            headers = {"Content-Type": "application/merge-patch+json"}
            async with self._session.patch(f"{self._url}/c{index:05d}", data=body, headers=headers) as answer:
                answer.raise_for_status()

        await self._each(count, patch)

    async def until_done(self, count: int, token: str, version: str, process: subprocess.Popen[bytes]) -> None:
        """Watch, from the version before the peer started, until every object's `done` is the token."""
        pending = {f"c{index:05d}" for index in range(count)}
        query = {"watch": "true", "resourceVersion": version, "labelSelector": "bench=yes"}
        async with asyncio.timeout(GIVE_UP_SECONDS), self._session.get(self._url, params=query) as answer:
            async for line in _lines(answer.content):
                item = json.loads(line)["object"]
                if item["data"].get("done") == token:
                    pending.discard(item["metadata"]["name"])
                if not pending:
                    return
                if process.poll() is not None:
                    message = f"the peer ended with exit code {process.returncode}"
                    raise RuntimeError(message)

    async def version(self) -> str:
        async with self._session.get(self._url, params={"limit": "1"}) as answer:
            return str((await answer.json())["metadata"]["resourceVersion"])

    async def _create(self, index: int) -> None:
        metadata = {"name": f"c{index:05d}", "labels": LABEL}
        body = {"metadata": metadata, "data": {"payload": PAYLOAD, "want": "0", "done": "never"}}
        async with self._session.post(self._url, json=body) as answer:
            answer.raise_for_status()

    async def _each(self, count: int, action: Any) -> None:
        slots = asyncio.Semaphore(CREATE_CONCURRENCY)

        async def one(index: int) -> None:
            async with slots:
                await action(index)

        async with asyncio.TaskGroup() as group:
            for index in range(count):
                group.create_task(one(index))


async def _lines(stream: aiohttp.StreamReader) -> Any:
    rest = b""
    async for chunk in stream.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line:
                yield line


def peers(names: Sequence[str], kubeconfig: Path) -> dict[str, list[str]]:
    """The command of each peer; builds and installs what is missing."""
    commands: dict[str, list[str]] = {}
    for name in names:
        if name == "ours":
            commands[name] = [sys.executable, str(HERE / "peer_ours.py"), str(kubeconfig)]
        elif name == "controller-runtime":
            binary = cache_directory().parent / "controller-runtime-peer"
            subprocess.run(["go", "build", "-o", str(binary), "."], cwd=HERE / "controller_runtime", check=True)
            commands[name] = [str(binary), str(kubeconfig)]
        else:
            python = ROOT / ".venv-bench" / "bin" / "python"
            if not python.exists():
                uv = shutil.which("uv") or str(ROOT / ".tools" / "bin" / "uv")
                subprocess.run([uv, "venv", "-q", str(python.parents[1])], check=True)
                subprocess.run([uv, "pip", "install", "-q", "--python", str(python), KOPF_REQUIREMENT], check=True)
            commands[name] = [str(python), str(HERE / "peer_kopf.py"), str(kubeconfig)]
    return commands


async def turn(cluster: Cluster, command: list[str], count: int, token: str, log: Path) -> dict[str, float]:
    """One run of one peer."""
    await cluster.reset(count, token)
    version = await cluster.version()
    started = time.monotonic()
    process = await asyncio.to_thread(_start, command, log)
    try:
        await cluster.until_done(count, token, version, process)
        wall = time.monotonic() - started
        cost = cost_of(process.pid)
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 30)
    return {"wall_seconds": wall, "cpu_seconds": cost.cpu_seconds, "peak_rss_mib": cost.peak_rss_mib}


def _start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(command, stdout=output, stderr=output, env=env)


async def measure(control_plane: ControlPlane, names: Sequence[str], count: int, runs: int) -> dict[str, Any]:
    """All turns, and their medians by peer."""
    commands = peers(names, control_plane.kubeconfig)
    headers = {"Authorization": f"Bearer {control_plane.token}"}
    limit, patient = aiohttp.TCPConnector(limit=64, ssl=False), aiohttp.ClientTimeout(total=None)
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    async with aiohttp.ClientSession(headers=headers, connector=limit, timeout=patient) as session:
        cluster = Cluster(control_plane, session)
        await cluster.create(count)
        for run in range(runs):
            for name, command in commands.items():
                log = control_plane.folder / f"{name}.log"
                result = await turn(cluster, command, count, f"{name}-{run}", log)
                results[name].append(result)
                print(f"  {name} {run + 1}/{runs}: {result}", file=sys.stderr, flush=True)
    medians = {
        name: {key: round(statistics.median(turn[key] for turn in turns), 2) for key in turns[0]}
        for name, turns in results.items()
    }
    return {"benchmark": "framework", "objects": count, "runs": runs, "medians": medians}


def main(arguments: list[str]) -> None:
    """Run and print one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m hack.bench framework")
    parser.add_argument("--objects", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--peers", nargs="+", default=["ours", "controller-runtime", "kopf"])
    options = parser.parse_args(arguments)
    with ControlPlane() as control_plane:
        print(json.dumps(asyncio.run(measure(control_plane, options.peers, options.objects, options.runs))))
