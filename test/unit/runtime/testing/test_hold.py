"""The virtual loop suspends the tasks of one owner, as a process that is stopped."""

import asyncio
import contextvars

from kaito.runtime.testing.virtual import VirtualTimeLoop, owner, run


async def ticks(into: list[float]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        into.append(loop.time())
        await asyncio.sleep(10)


def test_a_held_owner_executes_nothing_and_continues_where_it_was() -> None:
    async def main() -> tuple[list[float], list[float]]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        held: list[float] = []
        free: list[float] = []
        context = contextvars.copy_context()
        context.run(owner.set, "a")
        tasks = [context.run(loop.create_task, ticks(held)), loop.create_task(ticks(free))]
        await asyncio.sleep(15)
        loop.hold("a")
        await asyncio.sleep(50)
        loop.resume("a")
        await asyncio.sleep(11)
        for task in tasks:
            task.cancel()
        return held, free

    held, free = run(main(), seed=3)
    assert held == [0, 10, 65, 75]
    assert free == [0, 10, 20, 30, 40, 50, 60, 70]


def test_a_check_runs_before_time_advances() -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        checked: list[float] = []
        loop.before_advance = lambda: checked.append(loop.time())
        await asyncio.sleep(5)
        await asyncio.sleep(5)
        loop.before_advance = None
        return checked

    assert run(main()) == [0, 5]


def test_tasks_that_a_set_wakes_are_ordered_by_their_creation() -> None:
    """A set of tasks has the order of their addresses, which differs between two runs."""

    async def main(*, backwards: bool) -> list[int]:
        order: list[int] = []
        wake = [asyncio.Event() for _ in range(6)]

        async def work(number: int) -> None:
            await wake[number].wait()
            order.append(number)

        async with asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(work(number))
            await asyncio.sleep(1)
            for event in reversed(wake) if backwards else wake:
                event.set()
        return order

    assert run(main(backwards=False), seed=5) == run(main(backwards=True), seed=5)
