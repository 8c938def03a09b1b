"""The lease's thread: a stop ends it at whatever moment it comes, and never waits for a thread that was not started."""

import asyncio
from random import Random

import pytest

from kaito.runtime.client import Transport
from kaito.runtime.clock import SystemClock
from kaito.runtime.lease.elector import LeaseTerms
from kaito.runtime.lease.thread import ThreadLeadership

SOON = 5.0
"""Seconds; far less than a stop waits for a thread that does not end."""


def leadership(connected: list[str]) -> ThreadLeadership:
    async def connect() -> Transport:
        connected.append("connect")
        await asyncio.Event().wait()  # a server that never answers
        raise AssertionError

    return ThreadLeadership(
        LeaseTerms(namespace="default", name="example", identity="me"),
        connect,
        clock=SystemClock(),
        user_agent="test",
        field_manager="test",
        may_renew=lambda: True,
        on_slow_path=lambda: None,
        jitter=Random(1).random,
    )


async def test_a_stop_before_the_start_waits_for_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """A manager whose caches could not be filled stops before it has begun to campaign."""
    async with asyncio.timeout(SOON):
        await leadership([]).stop(release=True)
    assert "left behind" not in capsys.readouterr().err


async def test_a_stop_right_after_the_start_ends_the_thread() -> None:
    campaign = leadership([])
    await campaign.start()
    async with asyncio.timeout(SOON):
        await campaign.stop(release=True)


async def test_a_stop_while_connecting_ends_the_thread() -> None:
    connected: list[str] = []
    campaign = leadership(connected)
    await campaign.start()
    async with asyncio.timeout(SOON):
        while not connected:  # noqa: ASYNC110 -- set by another thread
            await asyncio.sleep(0.001)
        await campaign.stop(release=True)
