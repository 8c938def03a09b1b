"""Event loop in virtual time: tests never sleep, an hour passes in microseconds.

Tests run on it through the pytest plugin, or by `run(main())`. When no callback is ready, the loop advances its clock
to the next timer instead of waiting. It guarantees that the same program with the same seed interleaves in the same
way, that a program which cannot continue is reported with the stack of every task (`Deadlock`), and that runaway time
is reported (`TimeLimitExceeded`). The loop waits for threads (`asyncio.to_thread`) in real time, without advancing its
clock. It does not support sockets, whose peers run in real time.
"""

import asyncio
import heapq
import itertools
import random
import selectors
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from contextvars import Context
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack, cast, final

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

HORIZON_SECONDS = 30 * 24 * 3600.0
"""Virtual time after which a test is surely waiting for something that will never come."""

MOMENT_ROUNDS = 200_000
"""Rounds of the loop within one moment after which time will surely never move on again; some seconds of work."""

STACK_FRAMES = 4
"""Innermost frames shown per task in a report."""


class Deadlock(Exception):
    """No callback is ready, no timer is set: the program can never go on. Lists what each task waits for."""


class Livelock(Exception):
    """Callbacks make each other ready for ever while time stands still, as `Again(0)` does. Lists the tasks."""


class TimeLimitExceeded(Exception):
    """Periodic timers kept the loop alive beyond its horizon while the test waited for something else."""


def describe_tasks(loop: asyncio.AbstractEventLoop) -> str:
    """Each unfinished task with its innermost frames, for a human reader."""
    lines: list[str] = []
    for task in sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name()):
        lines.append(f"  {task.get_name()}")
        lines.extend(
            f"    {frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"
            for frame in task.get_stack(limit=STACK_FRAMES)
        )
    return "\n".join(lines)


class _JumpingSelector(selectors.BaseSelector):
    """Asks the loop to move its clock where a real selector would sleep."""

    def __init__(self) -> None:
        self._real = selectors.DefaultSelector()
        self.idle: Callable[[float | None], bool] = lambda _: True
        """Told the time to the next timer; answers whether the clock has moved (else wait in real time)."""

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """As the real one."""
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """As the real one."""
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """As the real one."""
        return self._real.modify(fileobj, events, data)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready now; if nothing is, virtual time moves on."""
        ready = self._real.select(0)
        if ready or timeout == 0:
            return ready
        return [] if self.idle(timeout) else self._real.select(None)

    def close(self) -> None:
        """As the real one."""
        self._real.close()

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """As the real one."""
        return self._real.get_map()


class _Timer(asyncio.TimerHandle):
    """A timer that knows which of two for the same moment was set first."""

    __slots__ = ("due", "serial")
    due: float
    serial: int

    def __lt__(self, other: "_Timer") -> bool:  # type: ignore[override]  # `call_at` makes every timer of the loop
        return self.serial < other.serial if self.due == other.due else self.due < other.due


@final
class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop in simulated time, which starts at 0.

    Args:
        seed: None runs tasks in the order they became ready, as asyncio does; a number shuffles the steps of tasks
            that are ready at the same moment, reproducibly, to find code that relies on an order nobody promised.
        horizon: virtual seconds after which `TimeLimitExceeded` is raised.
    """

    simulates_time: Final = True
    """Logs look here: their lines then carry the simulated moment."""

    def __init__(self, *, seed: int | None = None, horizon: float = HORIZON_SECONDS) -> None:
        self._virtual_now = 0.0
        self._horizon = horizon
        self._in_threads = 0
        self._rounds = 0
        self._serials = itertools.count()
        self._awaiting_idle: list[asyncio.Future[None]] = []
        self._awaiting_timer: list[asyncio.Future[None]] = []
        self._rng = None if seed is None else random.Random(seed)  # noqa: S311 - an order, not a secret
        selector = _JumpingSelector()
        selector.idle = self._idle
        super().__init__(selector)

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio's, but timers of one moment fire in the order they were set: in virtual time moments coincide."""
        timer = _Timer(when, callback, args, self, context)
        timer.due = when
        timer.serial = next(self._serials)
        heapq.heappush(cast("Any", self)._scheduled, timer)
        cast("Any", timer)._scheduled = True
        return timer

    def time(self) -> float:
        """Seconds of virtual time since the loop was made."""
        return self._virtual_now

    def suspend(self, seconds: float) -> None:
        """Let time pass while nothing runs, as when the process is stopped (SIGSTOP, a machine that sleeps).

        The caller continues at once; timers that became due meanwhile fire when it awaits.
        """
        self._virtual_now += seconds

    async def wait_until_idle(self) -> None:
        """Wait until nothing can happen without time moving on."""
        future: asyncio.Future[None] = self.create_future()
        self._awaiting_idle.append(future)
        await future

    async def wait_for_timer(self) -> None:
        """Wait until time has moved on to the next timer.

        Raises:
            Deadlock: no timer is set.
        """
        future: asyncio.Future[None] = self.create_future()
        self._awaiting_timer.append(future)
        await future

    def run_in_executor(self, executor: Any, func: Callable[[Unpack[Ts]], T], *args: *Ts) -> asyncio.Future[T]:
        """As asyncio's; virtual time stands still until the thread is done."""
        future = super().run_in_executor(executor, func, *args)
        self._in_threads += 1
        future.add_done_callback(self._thread_done)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """As asyncio's; it waits for a thread, too."""
        self._in_threads += 1
        try:
            if timeout is None:
                await super().shutdown_default_executor()
            else:  # Python 3.12 and later
                await cast("Any", super()).shutdown_default_executor(timeout)
        finally:
            self._in_threads -= 1

    def _thread_done(self, _: asyncio.Future[Any]) -> None:
        self._in_threads -= 1

    def _idle(self, until_timer: float | None) -> bool:
        self._rounds = 0
        if self._in_threads:
            return False
        if self._awaiting_idle:
            _release(self._awaiting_idle)
            return True
        if until_timer is None:
            message = f"nothing can happen any more; tasks wait for:\n{describe_tasks(self)}"
            raise Deadlock(message)
        self._virtual_now += until_timer
        if self._virtual_now > self._horizon:
            message = f"still waiting after {self._horizon:.0f} virtual seconds; tasks:\n{describe_tasks(self)}"
            raise TimeLimitExceeded(message)
        _release(self._awaiting_timer)
        return True

    def _run_once(self) -> None:
        self._rounds += 1
        if self._rounds > MOMENT_ROUNDS:
            self._rounds = 0
            message = f"time stands still after {MOMENT_ROUNDS} rounds of the loop; tasks:\n{describe_tasks(self)}"
            raise Livelock(message)
        if self._rng is not None:
            self._shuffle(self._rng)
        cast("Any", super())._run_once()

    def _shuffle(self, rng: random.Random) -> None:
        """Permute the ready steps of tasks among their places. Plain callbacks keep theirs: asyncio promises FIFO."""
        ready: deque[asyncio.Handle] = cast("Any", self)._ready
        places = [place for place, handle in enumerate(ready) if _is_task_step(handle)]
        handles = [ready[place] for place in places]
        rng.shuffle(handles)
        for place, handle in zip(places, handles, strict=True):
            ready[place] = handle


def _release(waiting: list[asyncio.Future[None]]) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(None)
    waiting.clear()


def _is_task_step(handle: asyncio.Handle) -> bool:
    return isinstance(getattr(cast("Any", handle)._callback, "__self__", None), asyncio.Task)


def run(main: Coroutine[Any, Any, T], *, seed: int | None = None) -> T:
    """Run a coroutine to its end in virtual time."""
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(seed=seed)) as runner:
        return runner.run(main)
