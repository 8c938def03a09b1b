"""Observations of the load, and what is left of them when the wall clock is corrected."""

import asyncio
from typing import cast

import pytest

from kaito.runtime.cache import View
from kaito.runtime.clock import LoopClock
from kaito.runtime.handler import Enqueue
from kaito.runtime.kinds import Pod
from kaito.runtime.meta import ObjectKey
from kaito.runtime.testing.simulate.wall_clock import ProcessClock
from kaito.workspace.scaling.monitor import MAX_AGE, LoadMonitor
from test.unit.workspace.scaling.test_load import TRANSFORMERS

pytestmark = pytest.mark.virtual_time

KEY = ObjectKey("default", "ws")
POD = Pod.model_validate({"metadata": {"name": "ws-0", "uid": "u"}, "status": {"podIP": "10.0.0.1"}})


async def test_observations_of_a_clock_that_was_ahead_are_dropped() -> None:
    responses = [TRANSFORMERS]

    async def fetch(_: str) -> bytes | None:
        return responses.pop() if responses else None

    clock = ProcessClock(LoopClock())
    monitor = LoadMonitor(fetch, clock)
    clock.offset_seconds = 86400.0
    async with asyncio.TaskGroup() as group:
        polls = group.create_task(monitor.run(cast("Enqueue", None), cast("View", None)))
        monitor.take(KEY, [POD])
        await asyncio.sleep(1)
        assert monitor.take(KEY, [POD])[-1].reported == 1
        clock.offset_seconds = 0.0
        await asyncio.sleep(MAX_AGE.total_seconds())
        history = monitor.take(KEY, [POD])
        polls.cancel()
    assert [(each.at, each.reported) for each in history] == [(clock.now(), 0)]
