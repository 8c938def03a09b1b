"""`ClusterClock`: the local clock, corrected by the times of responses."""

import asyncio
import json
from datetime import datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from typing import Any

import pytest

from kaito.runtime.clock import LoopClock
from kaito.runtime.cluster_clock import SAMPLES, ClusterClock
from kaito.runtime.testing.simulate.wall_clock import ProcessClock

pytestmark = pytest.mark.virtual_time

DAY = 86400.0


class Cluster:
    """An API server with the right time, and a machine whose clock may be wrong."""

    def __init__(self, ahead_seconds: float = 0.0) -> None:
        self.right = LoopClock()
        self.local = ProcessClock(self.right)
        self.local.offset_seconds = ahead_seconds
        self.clock = ClusterClock(self.local)

    async def respond(self, count: int = 1, *, wrong: float = 0.0, seconds: float = 0.0) -> None:
        for _ in range(count):
            await asyncio.sleep(1.25)
            date = format_datetime(self.right.now() + timedelta(seconds=wrong), usegmt=True)
            await asyncio.sleep(seconds)
            self.clock.observe(date, seconds)

    @property
    def error_seconds(self) -> float:
        return (self.clock.now() - self.right.now()).total_seconds()


@pytest.mark.parametrize("ahead", [0.0, 0.4, -0.4, 4.0, -4.0])
async def test_a_clock_that_is_nearly_right_is_used(ahead: float) -> None:
    cluster = Cluster(ahead)
    await cluster.respond(3)
    assert cluster.clock.now() == cluster.local.now()


@pytest.mark.parametrize("ahead", [DAY, -DAY, 3600.0, -3600.0, 20.0, -20.0])
async def test_one_response_corrects_a_wrong_clock(ahead: float) -> None:
    cluster = Cluster(ahead)
    assert cluster.clock.now() == cluster.local.now()
    await cluster.respond()
    assert abs(cluster.error_seconds) <= 1.0
    assert cluster.clock.skew_seconds == pytest.approx(ahead, abs=1.0)


async def test_a_jump_is_ignored_before_the_next_response() -> None:
    cluster = Cluster()
    await cluster.respond()
    cluster.local.offset_seconds = DAY
    await asyncio.sleep(100)
    assert abs(cluster.error_seconds) <= 1.0
    cluster.local.offset_seconds = 0.0
    assert cluster.error_seconds == 0.0
    assert cluster.clock.skew_seconds == 0.0


async def test_time_passes_evenly_while_the_clock_is_corrected() -> None:
    cluster = Cluster(DAY)
    times: list[datetime] = []
    for _ in range(30):
        await cluster.respond()
        times.append(cluster.clock.now())
    assert all(0.0 < (after - before).total_seconds() < 2.5 for before, after in pairwise(times))


async def test_one_of_several_servers_with_a_wrong_clock_is_outvoted() -> None:
    cluster = Cluster()
    for _ in range(SAMPLES):
        await cluster.respond(2)
        await cluster.respond(wrong=-DAY)
        assert cluster.error_seconds == 0.0


async def test_the_local_clock_decides_between_two_servers() -> None:
    cluster = Cluster()
    await cluster.respond(wrong=DAY)
    assert cluster.error_seconds > 1000  # the only witness; it has recorded the times of the objects
    await cluster.respond()
    assert cluster.error_seconds == 0.0


async def test_a_step_of_the_server_is_followed_once_most_responses_confirm_it() -> None:
    cluster = Cluster()
    await cluster.respond(SAMPLES)
    await cluster.respond(SAMPLES, wrong=-3600.0)
    assert cluster.error_seconds == pytest.approx(-3600.0, abs=1.0)


async def test_slow_responses_do_not_correct() -> None:
    cluster = Cluster(20.0)
    await cluster.respond(seconds=29.0)
    assert cluster.error_seconds == 20.0
    await cluster.respond(seconds=2.0)
    assert abs(cluster.error_seconds) <= 3.0


@pytest.mark.parametrize("date", ["", "yesterday", "Tue, 99 Foo 2030 00:00:00 GMT", "Thu, 1 Jan 99999999 0:0:0 GMT"])
async def test_malformed_dates_are_ignored(date: str) -> None:
    cluster = Cluster()
    cluster.clock.observe(date, 0.0)
    assert cluster.clock.now() == cluster.local.now()
    await cluster.respond()
    assert cluster.error_seconds == 0.0


async def test_a_wrong_clock_is_logged_once_with_the_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = Cluster(-3600.0)
    await cluster.respond(20)
    cluster.local.offset_seconds = 0.0
    await cluster.respond(20)
    lines: list[dict[str, Any]] = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    wrong, right = [line for line in lines if "clock of this machine" in line["msg"]]
    assert wrong["ahead_seconds"] == pytest.approx(-3600, abs=2)
    assert "chrony" in wrong["remedy"]
    assert "agrees" in right["msg"]
