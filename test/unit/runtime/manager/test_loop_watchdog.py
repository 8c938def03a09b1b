"""The watchdog of the event loop, and the owners of background tasks."""

import asyncio
import json
import time
from types import SimpleNamespace
from typing import Any

import pytest

from kaito.runtime.manager.health import loop_watchdog
from kaito.runtime.manager.health.loop_watchdog import LoopWatchdog, uses_real_time
from kaito.runtime.metrics import Metrics
from kaito.runtime.tasks import TaskPool, TaskScope
from kaito.runtime.testing import VirtualTimeLoop


def block_the_loop() -> None:
    time.sleep(2.2)


async def test_a_blocked_loop_is_reported_once_with_its_stack(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = Metrics()
    async with LoopWatchdog(metrics) as watchdog:
        await asyncio.sleep(0)
        assert watchdog.overdue == 0
        block_the_loop()
        assert watchdog.overdue > 1
        await asyncio.sleep(0.6)
        assert watchdog.overdue == 0
        await asyncio.sleep(0.6)
        assert watchdog.lag < 1
        assert metrics.value("kaito_runtime_loop_lag_seconds") > 1  # still to be seen by the next scrape
    records: list[dict[str, Any]] = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    [line] = [line for line in records if line["msg"].startswith("event loop is blocked")]
    assert "in block_the_loop" in line["stack"]


async def test_a_deliberate_blockage_is_not_reported(capsys: pytest.CaptureFixture[str]) -> None:
    """The garbage collection after the start."""
    metrics = Metrics()
    async with LoopWatchdog(metrics) as watchdog:
        await asyncio.sleep(0)
        with watchdog.paused():
            block_the_loop()
            assert watchdog.overdue == 0
        await asyncio.sleep(0.6)
        assert watchdog.lag < 1
        assert metrics.value("kaito_runtime_loop_lag_seconds") < 1
    assert "event loop is blocked" not in capsys.readouterr().err


@pytest.mark.virtual_time
async def test_simulated_time_is_never_late() -> None:
    assert isinstance(asyncio.get_running_loop(), VirtualTimeLoop)
    async with LoopWatchdog(Metrics()) as watchdog:
        await asyncio.sleep(3600)
        assert (watchdog.lag, watchdog.overdue) == (0, 0)


@pytest.mark.virtual_time
async def test_simulated_time_that_agrees_with_the_clock_of_the_machine_is_simulated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a machine that started an hour ago, a simulation of several hours passes the time since its start."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    monkeypatch.setattr(loop_watchdog, "time", SimpleNamespace(monotonic=loop.time))
    assert not uses_real_time(loop)
    async with LoopWatchdog(Metrics()) as watchdog:
        await asyncio.sleep(3600)
        assert (watchdog.lag, watchdog.overdue) == (0, 0)


def test_the_loops_of_asyncio_use_real_time() -> None:
    loop = asyncio.new_event_loop()
    assert uses_real_time(loop)
    loop.close()


@pytest.mark.virtual_time
async def test_a_pool_reports_tasks_that_end_unexpectedly_and_tasks_that_do_not_stop() -> None:
    ended: list[tuple[str, str]] = []
    pool = TaskPool("pool", on_end=lambda name, error: ended.append((name, str(error))))

    async def fail() -> None:
        message = "boom"
        raise OSError(message)

    async def stubborn() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(20)

    pool.spawn(asyncio.sleep(1), name="short")
    pool.spawn(fail(), name="failing")
    obedient = pool.spawn(asyncio.sleep(3600), name="obedient")
    pool.spawn(stubborn(), name="stubborn")
    await asyncio.sleep(2)
    await pool.end(obedient)
    assert ended == [("pool.failing", "boom"), ("pool.short", "None")]
    assert await pool.stop(5) == ["pool.stubborn"]
    assert await pool.stop(60) == []
    assert len(ended) == 2


@pytest.mark.virtual_time
async def test_a_scope_ends_its_tasks_and_raises_the_only_failure_bare() -> None:
    seen: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            seen.append("cancelled")

    async with TaskScope("scope") as scope:
        scope.spawn(wait(), name="wait")
        await asyncio.sleep(1)
    assert seen == ["cancelled"]

    async def fail() -> None:
        message = "boom"
        raise OSError(message)

    async def body() -> None:
        async with TaskScope("scope") as scope:
            scope.spawn(fail(), name="fail")
            await asyncio.sleep(3600)

    with pytest.raises(OSError, match="boom"):
        await body()
