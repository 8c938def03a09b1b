"""Measures the memory of `kaito console` while Workspaces change, on a real API server and with an open browser.

N Workspaces exist, and a client reads the stream of events as the page does. Changes of their status are written at a
steady rate, one in twenty of them is a deletion and a creation, and the page of one Workspace is read once a second.
Reported: resident memory of the process at the end of each part of the time, and CPU time for each change.
"""

import argparse
import asyncio
import os
import random
import re
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp

from hack.bench.process import Cost, cost_of
from hack.bench.report import Column, Figures, Report
from hack.bench.workspaces import workspace
from hack.envtest import ControlPlane
from kaito.api import Workspace, crds
from kaito.runtime.client import Client, MergePatch, connect
from kaito.runtime.errors import ApiError
from kaito.runtime.kinds import CustomResourceDefinition

PARTS: Final = 6
ROOT: Final = Path(__file__).resolve().parents[2]
START_SECONDS: Final = 60.0
COLUMNS: Final = (
    Column("changes", "changes so far", "{:,.0f}"),
    Column("rss_mib", "RSS", "{:.1f} MiB"),
    Column("cpu_ms", "CPU time of a change", "{:.1f} ms"),
)


@asynccontextmanager
async def console(kubeconfig: Path) -> AsyncGenerator[tuple[int, str]]:
    """Runs the process; yields its PID and the link that it prints.

    Raises:
        TimeoutError: it did not print a link in time.
    """
    command = [str(Path(sys.executable).with_name("kaito")), "console", f"--kubeconfig={kubeconfig}", "--port=0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=environment)
    try:
        link = None
        async with asyncio.timeout(START_SECONDS):
            while link is None and process.stdout is not None:
                link = re.search(r"http://\S+", (await process.stdout.readline()).decode())
        yield process.pid, link[0] if link is not None else ""
    finally:
        process.terminate()
        await process.wait()


async def install(client: Client, count: int) -> None:
    """Installs the kinds, and creates the Workspaces once they are served."""
    for document in crds.manifests():
        await client.create(CustomResourceDefinition.model_validate(document))
    async with asyncio.timeout(START_SECONDS):
        while True:
            try:
                await client.list(Workspace)
                break
            except ApiError:
                await asyncio.sleep(0.2)
    for index in range(count):
        await client.create(workspace(index))


async def change(client: Client, rng: random.Random, number: int, count: int) -> None:
    """Writes one change: of a condition, or the replacement of a Workspace."""
    target = workspace(rng.randrange(count))
    if number % 20 == 0:
        await client.delete(target)
        await client.create(target)
        return
    condition = {
        "type": "WorkspaceReady",
        "status": rng.choice(("True", "False")),
        "reason": "Benchmark",
        "message": f"change {number}",
        "lastTransitionTime": "2030-01-01T00:00:00Z",
    }
    await client.patch(target, MergePatch({"status": {"conditions": [condition]}}), subresource="status")


async def read_stream(browser: aiohttp.ClientSession, url: str) -> None:
    """Reads events until cancelled, as the page does."""
    async with browser.get(f"{url}/api/events", timeout=aiohttp.ClientTimeout(total=None)) as stream:
        async for _ in stream.content.iter_any():
            continue


async def measure(count: int, minutes: float, rate: float) -> dict[str, Figures]:
    """Returns the figures of each part of the time."""
    rows: dict[str, Figures] = {}
    jar, rng, loop = aiohttp.CookieJar(unsafe=True), random.Random(1), asyncio.get_running_loop()  # noqa: S311
    with ControlPlane() as plane:
        async with connect(plane.kubeconfig, field_manager="bench", user_agent="bench/1") as client:
            await install(client, count)
            async with console(plane.kubeconfig) as (pid, link), aiohttp.ClientSession(cookie_jar=jar) as browser:
                url = link.partition("/?")[0]
                async with browser.get(link) as answer:
                    answer.raise_for_status()
                async with asyncio.TaskGroup() as tasks:
                    stream = tasks.create_task(read_stream(browser, url))
                    await asyncio.sleep(5.0)
                    rows["start"] = figures(0, cost_of(pid), None)
                    number, began, before = 0, loop.time(), cost_of(pid)
                    for part in range(1, PARTS + 1):
                        until = began + minutes * 60.0 * part / PARTS
                        while loop.time() < until:
                            number += 1
                            await change(client, rng, number, count)
                            if number % max(int(rate), 1) == 0:
                                async with browser.get(f"{url}/api/workspaces/default/phi-0001") as answer:
                                    await answer.read()
                            await asyncio.sleep(max(began + number / rate - loop.time(), 0.0))
                        label = f"{minutes * part / PARTS:.0f} min"
                        rows[label] = figures(number, cost_of(pid), before)
                        print(f"{label}: {rows[label]}", file=sys.stderr, flush=True)
                    stream.cancel()
    return rows


def figures(changes: int, now: Cost, before: Cost | None) -> Figures:
    """Returns the figures of one moment."""
    spent = None if before is None else (now.cpu_seconds - before.cpu_seconds) / max(changes, 1) * 1000
    return {"changes": changes, "rss_mib": now.rss_mib, "cpu_ms": spent}


def benchmark(arguments: Sequence[str]) -> list[Report]:
    """Runs it."""
    parser = argparse.ArgumentParser(
        prog="python -m hack.bench console", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=200, help="Workspaces (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=60.0, help="duration (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=5.0, help="changes per second (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    rows = asyncio.run(measure(chosen.count, chosen.minutes, chosen.rate))
    about = "Memory of the console while Workspaces change on a real API server, with one open page."
    settings = {"Workspaces": chosen.count, "minutes": chosen.minutes, "changes per second": chosen.rate}
    return [Report("console", about, settings, COLUMNS, rows)]
