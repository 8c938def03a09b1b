"""Measures the work queues of the framework and of controller-runtime in the three scenarios of its benchmarks.

The scenarios are those of `pkg/controller/priorityqueue/priorityqueue_test.go`, with the keys that a controller has
(namespace and name) instead of integers:

* add, get, done: a thousand keys are added, then taken and marked as done one after the other.
* add only: the same thousand keys are added again and again; all but the first adds find their key queued.
* adds while consumed: a million keys are queued, a thousand consumers take keys and hold each for a millisecond, and
  meanwhile one producer adds a thousand keys at a time. Ours has one event loop: the producer yields after every batch,
  and the time until it runs again counts. Go's producer shares locks with the consumers.

CPU is that of all threads: Go's queue does part of its work on other goroutines, thus on the second core. Only the
queue is measured: no server, no reconcile. Each run is a separate process.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from hack.bench.framework.peers import CONTROLLER_RUNTIME, OURS, command, peer
from hack.bench.framework.protocol import emit
from hack.bench.report import Column, Figures, Report, in_turn, medians
from kaito.runtime.meta import ObjectKey
from kaito.runtime.tasks import TaskScope
from kaito.runtime.workqueue import WorkQueue

BATCH = 1_000
SEEDED = 1_000_000
CONSUMERS = 1_000
HOLD_SECONDS = 0.001

COLUMNS = (
    Column("add_get_done_per_second", "add, get, done", "{:,.0f}/s"),
    Column("add_get_done_cpu_us", "CPU of one", "{:.2f} µs"),
    Column("add_only_per_second", "add only", "{:,.0f}/s"),
    Column("add_only_cpu_us", "CPU of one", "{:.2f} µs"),
    Column("contended_per_second", "adds while consumed", "{:,.0f}/s"),
    Column("contended_consumed_per_second", "consumed meanwhile", "{:,.0f}/s"),
)


async def pace(seconds: float, batch: Callable[[], Awaitable[None]]) -> dict[str, float]:
    """How many keys a second go through, a batch at a time, and the CPU time of one."""
    started, cpu, batches = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - started < seconds:
        await batch()
        batches += 1
    wall, used = time.perf_counter() - started, time.process_time() - cpu
    return {"per_second": batches * BATCH / wall, "cpu_us": used / (batches * BATCH) * 1e6}


async def add_get_done(seconds: float, keys: Sequence[ObjectKey]) -> dict[str, float]:
    """Adds, takes and finishes keys."""
    queue = WorkQueue[ObjectKey]()

    async def batch() -> None:
        for key in keys:
            queue.add(key)
        for _ in keys:
            item = await queue.get()
            if item is None:
                raise RuntimeError("the queue is closed")
            queue.done(item.key)

    return await pace(seconds, batch)


async def add_only(seconds: float, keys: Sequence[ObjectKey]) -> dict[str, float]:
    """Adds keys that are queued already."""
    queue = WorkQueue[ObjectKey]()

    async def batch() -> None:
        for key in keys:
            queue.add(key)

    return await pace(seconds, batch)


async def contended(seconds: float, keys: Sequence[ObjectKey]) -> dict[str, float]:
    """Adds keys beside a thousand consumers."""
    queue = WorkQueue[ObjectKey]()
    for key in keys:
        queue.add(key)
    done = 0

    async def consume() -> None:
        nonlocal done
        while (item := await queue.get()) is not None:
            await asyncio.sleep(HOLD_SECONDS)
            queue.done(item.key)
            done += 1

    async def batch() -> None:
        for key in keys[:BATCH]:
            queue.add(key)
        await asyncio.sleep(0)

    async with TaskScope("consumers") as scope:
        for number in range(CONSUMERS):
            scope.spawn(consume(), name=f"{number}")
        started, before = time.perf_counter(), done
        result = await pace(seconds, batch)
        result["consumed_per_second"] = (done - before) / (time.perf_counter() - started)
    return result


async def ours(seconds: float) -> dict[str, dict[str, float]]:
    """Runs the three scenarios in this process."""
    keys = [ObjectKey("default", f"c{number:07d}") for number in range(SEEDED)]
    return {
        "add_get_done": await add_get_done(seconds, keys[:BATCH]),
        "add_only": await add_only(seconds, keys[:BATCH]),
        "contended": await contended(seconds, keys),
    }


async def turn(name: str, seconds: float, folder: Path) -> Figures:
    """Runs one queue once, in a separate process."""
    if name == OURS:
        started = [sys.executable, "-m", "hack.bench.framework.queue_operations"]
    else:
        started = [*command(name), "queue", "-"]
    async with peer(name, [*started, "--seconds", str(seconds)], log=folder / f"{name}.log") as running:
        event = await running.until("result")
    shapes = ("add_get_done", "add_only", "contended")
    return {f"{shape}_{key}": value for shape in shapes for key, value in event[shape].items()}


async def measure(seconds: float, runs: int) -> Report:
    """Runs all queues in turn and reports the medians by queue."""
    with TemporaryDirectory() as folder:
        turns = await in_turn((OURS, CONTROLLER_RUNTIME), runs, lambda name, _: turn(name, seconds, Path(folder)))
    return Report(
        name="queue",
        about=f"keys a second through the work queue, {seconds:g} s a shape; medians of {runs}",
        settings={"seconds": seconds, "runs": runs, "seeded": SEEDED, "consumers": CONSUMERS},
        columns=COLUMNS,
        rows=medians(turns),
        turns=turns,
    )


def benchmark(arguments: Sequence[str]) -> list[Report]:
    """Runs the benchmark with command-line options; returns its reports."""
    parser = argparse.ArgumentParser(
        prog="python -m hack.bench queue", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="of each shape")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args(arguments)
    return [asyncio.run(measure(options.seconds, options.runs))]


if __name__ == "__main__":
    alone = argparse.ArgumentParser()
    alone.add_argument("--seconds", type=float, required=True)
    emit("result", **asyncio.run(ours(alone.parse_args().seconds)))
