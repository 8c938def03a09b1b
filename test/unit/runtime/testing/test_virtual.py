"""The virtual-time loop: jumps, reports dead ends, repeats interleavings."""

import asyncio
import threading
import time

import pytest

from kaito.runtime.tasks import TaskScope
from kaito.runtime.testing import Deadlock, Livelock, TimeLimitExceeded, VirtualTimeLoop
from kaito.runtime.testing.virtual import run


def test_an_hour_passes_at_once() -> None:
    async def main() -> float:
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    started = time.monotonic()
    assert run(main()) == 3600
    assert time.monotonic() - started < 5


def test_timers_fire_in_order() -> None:
    fired: list[float] = []

    async def sleeper(seconds: float) -> None:
        await asyncio.sleep(seconds)
        fired.append(seconds)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for seconds in (3.0, 1.0, 2.0):
                group.create_task(sleeper(seconds))

    run(main())
    assert fired == [1.0, 2.0, 3.0]


def test_a_dead_end_is_reported_with_what_tasks_wait_for() -> None:
    async def waits_for_nothing() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Deadlock, match="waits_for_nothing"):
        run(waits_for_nothing())


def test_a_livelock_at_one_instant_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    async def spin() -> None:
        while True:  # noqa: ASYNC110 - turning without waiting is the point
            await asyncio.sleep(0)

    async def main() -> None:
        async with TaskScope("test") as scope:
            scope.spawn(spin(), name="spinner")
            await asyncio.sleep(1)

    monkeypatch.setattr("kaito.runtime.testing.virtual.INSTANT_ITERATIONS", 1000)
    with pytest.raises(Livelock, match=r"test\.spinner"):
        run(main())


def test_a_loop_that_only_timers_keep_running_is_reported() -> None:
    async def tick() -> None:
        while True:  # noqa: ASYNC110 - a timer is the point
            await asyncio.sleep(60)

    async def main() -> None:
        async with TaskScope("test") as scope:
            scope.spawn(tick(), name="ticker")
            await asyncio.get_running_loop().create_future()

    with pytest.raises(TimeLimitExceeded, match=r"test\.ticker"):
        run(main())


def test_threads_are_waited_for_while_time_stands_still() -> None:
    async def main() -> tuple[str, float]:
        name = await asyncio.to_thread(lambda: threading.current_thread().name)
        return name, asyncio.get_running_loop().time()

    name, now = run(main())
    assert name != threading.main_thread().name
    assert now == 0


def _interleaving(seed: int | None) -> list[int]:
    order: list[int] = []

    async def step(number: int) -> None:
        await asyncio.sleep(1)
        order.append(number)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(8):
                group.create_task(step(number))

    run(main(), seed=seed)
    return order


def test_a_seed_fixes_the_interleaving_and_others_explore_more() -> None:
    assert _interleaving(None) == list(range(8))
    assert _interleaving(3) == _interleaving(3)
    assert len({tuple(_interleaving(seed)) for seed in range(10)}) > 5


@pytest.mark.seeds(2)
async def test_the_plugin_runs_marked_tests_in_virtual_time() -> None:
    assert isinstance(asyncio.get_running_loop(), VirtualTimeLoop)


async def test_the_plugin_leaves_other_tests_alone() -> None:
    assert not isinstance(asyncio.get_running_loop(), VirtualTimeLoop)
