"""Time limits with one timer: the semantics of `asyncio.timeout`, in virtual time."""

import asyncio

import pytest

from kaito.runtime.clock import monotonic
from kaito.runtime.deadlines import Deadlines
from kaito.runtime.testing import World

pytestmark = pytest.mark.usefixtures("world")


@pytest.fixture
def deadlines() -> Deadlines:
    return Deadlines()


async def test_an_operation_is_canceled_at_its_deadline(deadlines: Deadlines, world: World) -> None:
    assert world is not None
    began = monotonic()
    limit = deadlines.limit(5)
    with pytest.raises(TimeoutError) as caught, limit:
        await asyncio.sleep(60)
    assert monotonic() - began == 5
    assert limit.expired
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_every_operation_has_its_own_deadline(deadlines: Deadlines) -> None:
    ends: list[tuple[float, float]] = []
    began = monotonic()

    async def work(seconds: float) -> None:
        try:
            with deadlines.limit(seconds):
                await asyncio.sleep(100)
        except TimeoutError:
            ends.append((seconds, monotonic() - began))

    async with asyncio.TaskGroup() as group:
        for seconds in (30.0, 1.0, 10.0, 10.0, 2.5):
            group.create_task(work(seconds))
    assert ends == [(1.0, 1.0), (2.5, 2.5), (10.0, 10.0), (10.0, 10.0), (30.0, 30.0)]


async def test_what_ends_in_time_is_not_canceled_by_the_timer_of_others(deadlines: Deadlines) -> None:
    for _ in range(10):
        with deadlines.limit(3):
            await asyncio.sleep(2)
    with deadlines.limit(100):
        await asyncio.sleep(50)
    with pytest.raises(TimeoutError), deadlines.limit(4):
        await asyncio.sleep(5)


async def test_without_a_limit_nothing_ends(deadlines: Deadlines) -> None:
    with deadlines.limit(None) as limit:
        await asyncio.sleep(1_000_000)
    assert not limit.expired


async def test_another_cancellation_stays_a_cancellation(deadlines: Deadlines) -> None:
    async def work() -> None:
        with deadlines.limit(5):
            await asyncio.sleep(100)

    task = asyncio.Task(work())
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_at_the_deadline_stays_a_cancellation(deadlines: Deadlines) -> None:
    async def work() -> None:
        with deadlines.limit(5):
            await asyncio.sleep(100)

    task = asyncio.Task(work())
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(5, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_exception_leaves_the_scope_unchanged(deadlines: Deadlines) -> None:
    with pytest.raises(ValueError, match="x"), deadlines.limit(5):
        raise ValueError("x")
    await asyncio.sleep(10)


async def test_an_exception_during_the_cancellation_stays_what_it_is(deadlines: Deadlines) -> None:
    limit = deadlines.limit(5)
    with pytest.raises(ValueError, match="while canceled"), limit:  # noqa: PT012 - the scope is what is tested
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            raise ValueError("while canceled") from None
    assert limit.expired
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_limits_nest(deadlines: Deadlines) -> None:
    began = monotonic()
    with pytest.raises(TimeoutError), deadlines.limit(5), deadlines.limit(50):
        await asyncio.sleep(100)
    assert monotonic() - began == 5
    with deadlines.limit(50):
        with pytest.raises(TimeoutError), deadlines.limit(5):
            await asyncio.sleep(100)
        await asyncio.sleep(1)


async def test_a_limit_in_the_past_ends_at_the_next_await(deadlines: Deadlines) -> None:
    with pytest.raises(TimeoutError), deadlines.limit(-1):
        await asyncio.sleep(1)


async def test_after_close_nothing_is_canceled(deadlines: Deadlines) -> None:
    with deadlines.limit(5) as limit:
        deadlines.close()
        await asyncio.sleep(10)
    assert not limit.expired
