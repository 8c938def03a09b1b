"""Workers that wait on the queue: timers, wake-ups, closing and draining, in virtual time."""

import asyncio

import pytest

from kaito.runtime.clock import monotonic
from kaito.runtime.tasks import TaskScope
from kaito.runtime.workqueue import WorkQueue

pytestmark = pytest.mark.virtual_time


async def _next(queue: WorkQueue[str]) -> str | None:
    item = await queue.get()
    return None if item is None else item.key


async def test_a_delayed_key_wakes_a_waiting_worker_on_time() -> None:
    queue = WorkQueue[str]()
    queue.add("x", after=12.5)
    assert await _next(queue) == "x"
    assert monotonic() == 12.5


async def test_an_earlier_time_moves_the_timer_of_a_waiting_worker() -> None:
    queue = WorkQueue[str]()
    queue.add("x", after=100)
    async with TaskScope("test") as scope:
        taken = scope.spawn(_next(queue), name="get")
        await asyncio.sleep(1)
        queue.add("x", after=2)
        assert await taken == "x"
    assert monotonic() == 3


async def test_each_added_key_wakes_one_worker() -> None:
    queue = WorkQueue[str]()
    async with TaskScope("test") as scope:
        workers = [scope.spawn(_next(queue), name=f"get-{n}") for n in range(3)]
        await asyncio.sleep(0)
        queue.add("a")
        queue.add("b")
        await asyncio.sleep(1)
        assert sorted(str(worker.result()) for worker in workers if worker.done()) == ["a", "b"]


async def test_a_cancelled_worker_passes_its_wake_up_on() -> None:
    queue = WorkQueue[str]()
    async with TaskScope("test") as scope:
        first = scope.spawn(_next(queue), name="first")
        second = scope.spawn(_next(queue), name="second")
        await asyncio.sleep(0)
        queue.add("x")
        first.cancel()
        assert await second == "x"


@pytest.mark.sample(4)
@pytest.mark.seeds(20)
async def test_cancelled_workers_lose_no_key() -> None:
    queue = WorkQueue[str]()
    taken: list[str] = []

    async def work() -> None:
        while (item := await queue.get()) is not None:
            taken.append(item.key)
            await asyncio.sleep(0)
            queue.done(item.key)

    async with TaskScope("test") as scope:
        workers = [scope.spawn(work(), name=f"w{n}") for n in range(4)]
        for number in range(50):
            queue.add(f"k{number}")
            if number % 7 == 0:
                workers.pop().cancel()
                workers.append(scope.spawn(work(), name=f"r{number}"))
            await asyncio.sleep(0)
        await asyncio.sleep(1)
    assert sorted(taken) == sorted(f"k{number}" for number in range(50))


@pytest.mark.conformance(10)
async def test_close_wakes_every_worker_drops_keys_and_may_come_twice() -> None:
    queue = WorkQueue[str]()
    async with TaskScope("test") as scope:
        workers = [scope.spawn(_next(queue), name=f"get-{n}") for n in range(3)]
        await asyncio.sleep(0)
        queue.add("late", after=60)
        queue.close()
        queue.close()
        assert [await worker for worker in workers] == [None, None, None]
    queue.add("after the end")
    assert await queue.get() is None
    assert queue.dump() == []


@pytest.mark.conformance(10)
async def test_drain_finishes_ready_and_current_work() -> None:
    queue = WorkQueue[str]()
    done: list[str] = []

    async def work() -> None:
        while (item := await queue.get()) is not None:
            await asyncio.sleep(5)
            if item.key == "a" and done == []:
                queue.add("ignored while draining")
            done.append(item.key)
            queue.done(item.key)

    for key in ("a", "b"):
        queue.add(key)
    queue.add("never", after=7)
    async with TaskScope("test") as scope:
        worker = scope.spawn(work(), name="worker")
        await asyncio.sleep(1)
        assert await queue.drain(timeout=None)
        await worker
    assert done == ["a", "b"]
    assert monotonic() == 10


@pytest.mark.conformance(10)
async def test_drain_gives_up_after_its_timeout() -> None:
    queue = WorkQueue[str]()
    queue.add("stuck")
    assert await _next(queue) == "stuck"
    assert not await queue.drain(timeout=3)
    assert monotonic() == 3
    queue.done("stuck")
    assert await queue.get() is None
