"""Runs a manager under churn on a real API server and checks for lost changes, memory growth and stuck keys.

    python -m hack.bench.framework.churn [--minutes 10] [--rate 100] [--record rss.csv]

This process creates, changes and deletes ConfigMaps at a steady rate; a manager in a separate process (`churn_manager`)
sets `data.done` to `data.want` on each. Meanwhile its watches are cut at random, each cut losing the data in transit,
and the API server is stopped and started. Afterwards the manager's cache must equal a live list, every object must be
done, and its queue must be empty. Prints JSON; exits with 1 if one of these does not hold, if the manager does not shut
down cleanly, or if its resident memory grew by more than a tenth after the first minute.
"""

import argparse
import asyncio
import json
import random
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from hack.bench.framework.churn_manager import LABELS
from hack.bench.process import cost_of
from hack.envtest import ControlPlane
from hack.envtest.control_plane import free_port
from kaito.runtime import AlreadyExists, ApiError, Client, NotFound
from kaito.runtime.client import MergePatch, connect
from kaito.runtime.errors import TransportError
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.tasks import TaskScope

NAMES = 500
MOST_IN_FLIGHT = 100
"""Maximum number of pending changes; beyond it, no change is sent, because the server is down."""

CUT_SECONDS = 4.0
"""Mean time between cuts of all watches."""

AWAY_SECONDS = 3.0
"""Seconds for which the API server is down."""

SETTLE_SECONDS = 120.0
START_SECONDS = 30.0
STOP_SECONDS = 30.0
ALLOWED_GROWTH_PERCENT = 10.0

MINUTE = 60

Difference = dict[str, str]
"""Differences by key."""


@dataclass
class Churn:
    """Client that changes objects; each object has at most one change in progress."""

    client: Client
    rng: random.Random
    present: set[str] = field(default_factory=set[str])
    in_flight: set[str] = field(default_factory=set[str])
    changes: int = 0
    refused: int = 0

    async def run(self, rate: float) -> None:
        """Changes a random object `rate` times a second until canceled."""
        async with TaskScope("churn") as scope:
            due = time.monotonic()
            while True:
                if len(self.in_flight) < MOST_IN_FLIGHT:
                    name = self._free_name()
                    self.in_flight.add(name)
                    scope.spawn(self._change(name), name=name)
                else:
                    self.refused += 1
                due += 1 / rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    def _free_name(self) -> str:
        while (name := f"c{self.rng.randrange(NAMES):03}") in self.in_flight:
            pass
        return name

    async def _change(self, name: str) -> None:
        want = str(self.rng.random())
        body = ConfigMap(metadata=ObjectMeta(name=name, namespace="default", labels=LABELS), data={"want": want})
        try:
            if name not in self.present:
                await self.client.create(body)
                self.present.add(name)
            elif self.rng.random() < 0.3:
                await self.client.delete(body, if_uid=False)
                self.present.discard(name)
            else:
                await self.client.patch(body, MergePatch({"data": {"want": want}}))
            self.changes += 1
        except AlreadyExists:  # Created by a request whose response was lost.
            self.refused += 1
            self.present.add(name)
        except NotFound:
            self.refused += 1
            self.present.discard(name)
        except (ApiError, TransportError):
            self.refused += 1  # The server is down; the next change follows.
        finally:
            self.in_flight.discard(name)


class ManagerProcess:
    """The manager's process: its memory, commands and endpoints."""

    def __init__(self, process: Process, url: str, session: aiohttp.ClientSession) -> None:
        self._process = process
        self._url = url
        self._session = session
        self.cuts: int = 0

    @property
    def pid(self) -> int:
        return self._process.pid

    def cut(self) -> None:
        """Breaks its watches."""
        self._order("cut")
        self.cuts += 1

    async def cached(self) -> dict[str, list[str | None]]:
        """The content of its cache: version, `want` and `done` by name."""
        self._order("show")
        line = await self._process.stdout.readline() if self._process.stdout is not None else b""
        shown: dict[str, list[str | None]] = json.loads(line)
        return shown

    def _order(self, word: str) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write(f"{word}\n".encode())

    async def queued(self) -> Difference:
        """Every queued or running key, from `/debug/queues`."""
        async with self._session.get(f"{self._url}/debug/queues") as answer:
            queues = await answer.json()
        return {
            row["key"]: f"{row['state']} for {row['seconds']} s after {row['failures']} failures"
            for rows in queues.values()
            for row in rows
        }

    async def tally(self, metric: str, label: str) -> dict[str, int]:
        """The counts of one metric by one of its labels."""
        async with self._session.get(f"{self._url}/metrics") as answer:
            text = await answer.text()
        return {
            sample.labels[label]: int(sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == metric
        }

    async def wait_started(self) -> None:
        """Waits until it responds."""
        async with asyncio.timeout(START_SECONDS):
            while True:
                try:
                    await self.queued()
                except aiohttp.ClientConnectionError:
                    if self._process.returncode is not None:
                        raise
                    await asyncio.sleep(0.1)
                else:
                    return

    async def stop(self) -> int:
        """Stops it; returns its exit code."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                return await self._process.wait()
        except TimeoutError:
            self._process.kill()
            return await self._process.wait()


@asynccontextmanager
async def managing(kubeconfig: Path) -> AsyncGenerator[ManagerProcess]:
    """A started manager."""
    address = f"127.0.0.1:{free_port()}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hack.bench.framework.churn_manager", str(kubeconfig), address, stdin=PIPE, stdout=PIPE
    )
    async with aiohttp.ClientSession() as session:
        manager = ManagerProcess(process, f"http://{address}", session)
        try:
            await manager.wait_started()
            yield manager
        finally:
            await manager.stop()


async def cut_now_and_then(manager: ManagerProcess, rng: random.Random) -> None:
    """Cuts its watches at random until cancelled."""
    while True:
        await asyncio.sleep(rng.expovariate(1 / CUT_SECONDS))
        manager.cut()


async def restart(plane: ControlPlane, times: int, seconds: float) -> None:
    """Restarts the API server at equal intervals."""
    started = time.monotonic()
    for number in range(1, times + 1):
        await asyncio.sleep(max(0.0, started + seconds * number / (times + 1) - time.monotonic()))
        await asyncio.to_thread(plane.stop_api_server)
        await asyncio.sleep(AWAY_SECONDS)
        await asyncio.to_thread(plane.start_api_server)


async def resident(manager: ManagerProcess, seconds: float) -> list[float]:
    """Its resident MiB, second by second."""
    sizes: list[float] = []
    started = time.monotonic()
    while len(sizes) <= seconds:
        sizes.append(round(cost_of(manager.pid).rss_mib, 2))
        await asyncio.sleep(max(0.0, started + len(sizes) - time.monotonic()))
    return sizes


async def wrong(manager: ManagerProcess, client: Client) -> Difference:
    """Differences by key: queued, not done, or different in the cache and on the server."""
    found = await manager.queued()
    cached = await manager.cached()
    for live in await client.list(ConfigMap, namespace="default", labels=LABELS):
        want, done = live.data.get("want"), live.data.get("done")
        shown = cached.pop(live.name, None)
        if shown != [live.metadata.resource_version, want, done]:
            found[live.name] = f"cached as {shown}, live at {live.metadata.resource_version}"
        elif want != done:
            found[live.name] = f"not done: {done}, not {want}"
    return found | dict.fromkeys(cached, "only cached")


async def settled(manager: ManagerProcess, client: Client) -> tuple[Difference, float]:
    """The remaining differences after the last change, and the seconds until they were stable."""
    started = time.monotonic()
    while True:
        found = await wrong(manager, client)
        passed = time.monotonic() - started
        if not found or passed > SETTLE_SECONDS:
            return found, passed
        await asyncio.sleep(0.5)


async def measure(minutes: float, rate: float, restarts: int) -> dict[str, Any]:
    """Runs the benchmark; returns the figures and the remaining differences."""
    rng = random.Random(1)  # noqa: S311 -- a benchmark
    seconds = minutes * MINUTE
    with ControlPlane() as plane:
        async with connect(plane.kubeconfig, field_manager="churn") as client, managing(plane.kubeconfig) as manager:
            churn = Churn(client, rng)
            async with TaskScope("bench") as scope:
                scope.spawn(churn.run(rate), name="churn")
                scope.spawn(cut_now_and_then(manager, rng), name="knife")
                restarting = scope.spawn(restart(plane, restarts, seconds), name="restarts")
                sizes = await resident(manager, seconds)
                await restarting
            left, settling = await settled(manager, client)
            figures = {
                "minutes": minutes,
                "changes": churn.changes,
                "changes_per_second": round(churn.changes / seconds, 1),
                "changes_refused": churn.refused,
                "reconciles": await manager.tally("controller_runtime_reconcile_total", "result"),
                "cuts": manager.cuts,
                "api_server_restarts": restarts,
                "watch_restarts": await manager.tally("kaito_runtime_watch_restarts_total", "reason"),
                "relists": await manager.tally("kaito_runtime_relists_total", "reason"),
                "own_write_waits": await manager.tally("kaito_runtime_ryw_waits_total", "outcome"),
                "cpu_seconds": round(cost_of(manager.pid).cpu_seconds, 1),
                "settled_after_seconds": round(settling, 1),
                "wrong": left,
            }
            exit_code = await manager.stop()
    return figures | {"exit_code": exit_code} | growth(sizes) | {"rss_mib_by_second": sizes}


def growth(sizes: Sequence[float]) -> dict[str, Any]:
    """Returns the memory by minute, and its growth after the first minute (after half of a run shorter than two
    minutes)."""
    later = sizes[min(MINUTE, len(sizes) // 2) :]
    return {
        "rss_mib_by_minute": sizes[::MINUTE],
        "rss_mib_after_first_minute": later[0],
        "rss_mib_highest_later": max(later),
        "rss_growth_percent": round((max(later) / later[0] - 1) * 100, 1),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rate", type=float, default=100, help="changes a second")
    parser.add_argument("--restarts", type=int, default=2, help="of the API server")
    parser.add_argument("--record", type=Path, help="write second and resident MiB to this file")
    options = parser.parse_args(arguments)
    result = asyncio.run(measure(options.minutes, options.rate, options.restarts))
    by_second = result.pop("rss_mib_by_second")
    if options.record:
        options.record.write_text("".join(f"{second},{size}\n" for second, size in enumerate(by_second)))
    print(json.dumps(result, indent=2))
    if result["wrong"] or result["exit_code"] or result["rss_growth_percent"] > ALLOWED_GROWTH_PERCENT:
        sys.exit(1)


if __name__ == "__main__":
    main()
