"""Token bucket: order, rate, pauses, credit."""

import asyncio

import pytest

from kaito.runtime.clock import monotonic
from kaito.runtime.tasks import TaskScope
from kaito.runtime.token_bucket import BucketPaused, TokenBucket

pytestmark = pytest.mark.virtual_time


async def test_requests_above_the_burst_wait_for_the_rate_in_order() -> None:
    bucket = TokenBucket(rate=2, burst=3)
    order: list[int] = []

    async def take(number: int) -> float:
        waited = await bucket.take()
        order.append(number)
        return waited

    waited = await asyncio.gather(*(take(number) for number in range(6)))
    assert waited == pytest.approx([0, 0, 0, 0.5, 1.0, 1.5])
    assert order == [0, 1, 2, 3, 4, 5]


async def test_tokens_are_taken_in_the_order_of_the_callers() -> None:
    bucket = TokenBucket(rate=1, burst=1)
    order: list[str] = []

    async def take(name: str, *, first: bool) -> None:
        await bucket.take(first=first)
        order.append(name)

    async with TaskScope("test") as scope:
        await bucket.take()
        scope.spawn(take("later", first=False), name="later")
        await asyncio.sleep(0.1)
        assert bucket.waiting == 1
        scope.spawn(take("first", first=True), name="first")
        await asyncio.sleep(5)
    assert order == ["first", "later"]


async def test_a_canceled_caller_gives_its_place_to_the_next() -> None:
    bucket = TokenBucket(rate=1, burst=1)
    async with TaskScope("test") as scope:
        await bucket.take()
        canceled = scope.spawn(bucket.take(), name="canceled")
        last = scope.spawn(bucket.take(), name="last")
        await asyncio.sleep(0.5)
        canceled.cancel()
        assert await last == pytest.approx(1.0)


async def test_a_short_pause_is_waited_for_and_empties_the_bucket() -> None:
    bucket = TokenBucket(rate=1, burst=10, max_wait=5)
    bucket.pause(3)
    assert bucket.tokens == 0
    assert not bucket.is_full
    assert await bucket.take() == pytest.approx(3)
    assert bucket.tokens == pytest.approx(2)


async def test_a_long_pause_is_an_error_with_the_remaining_seconds() -> None:
    bucket = TokenBucket(rate=1, burst=1, max_wait=5)
    bucket.pause(60)
    await asyncio.sleep(10)
    with pytest.raises(BucketPaused) as paused:
        await bucket.take()
    assert paused.value.remaining_seconds == pytest.approx(50)
    await asyncio.sleep(46)
    assert await bucket.take() == pytest.approx(4)


async def test_a_pause_reaches_callers_that_wait_already() -> None:
    bucket = TokenBucket(rate=0.1, burst=1, max_wait=5, paused_error=lambda seconds: ValueError(f"{seconds:.0f}"))
    await bucket.take()

    async def pause_later() -> None:
        await asyncio.sleep(1)
        bucket.pause(60)

    error, _ = await asyncio.gather(bucket.take(), pause_later(), return_exceptions=True)
    assert isinstance(error, ValueError)
    assert str(error) == "60"
    assert monotonic() == pytest.approx(1)


async def test_a_changed_rate_applies_to_callers_that_wait() -> None:
    bucket = TokenBucket(rate=0.1, burst=1)
    async with TaskScope("test") as scope:
        await bucket.take()
        waiting = scope.spawn(bucket.take(), name="waiting")
        await asyncio.sleep(0)
        bucket.set_rate(2)
        assert bucket.rate == 2
        assert await waiting == pytest.approx(0.5)


def test_a_reservation_takes_tokens_on_credit() -> None:
    now = 0.0
    bucket = TokenBucket(10, 2, now=lambda: now)
    assert [bucket.reserve() for _ in range(4)] == pytest.approx([0, 0, 0.1, 0.2])
    now = 1.0
    assert bucket.reserve() == 0
    assert bucket.tokens == pytest.approx(1)


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (1, 0.5)])
def test_a_bucket_without_tokens_is_an_error(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="rate above 0 and a burst of at least 1"):
        TokenBucket(rate, burst)
