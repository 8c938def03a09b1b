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
from contextvars import Context, ContextVar
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack, cast, final

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

HORIZON_SECONDS = 30 * 24 * 3600.0
"""Limit of virtual time, far longer than any test needs."""

INSTANT_ITERATIONS = 200_000
"""Limit of loop iterations at one instant, after which a livelock is reported; takes some seconds."""

STACK_FRAMES = 4
"""Number of innermost frames per task in a report."""

owner: ContextVar[object | None] = ContextVar("owner", default=None)
"""Owner of the tasks that are started in this context, for `VirtualTimeLoop.hold`: a simulated process, for example."""


class Deadlock(Exception):
    """No callback is ready and no timer is set: the program cannot continue. The message lists the stack of every
    task."""


class Livelock(Exception):
    """Callbacks schedule each other without advancing time, for example by `Again(0)`. The message lists the tasks."""


class TimeLimitExceeded(Exception):
    """The limit of virtual time was reached: periodic timers keep the loop running while the test waits."""


def describe_tasks(loop: asyncio.AbstractEventLoop) -> str:
    """Returns the unfinished tasks with their innermost frames as text."""
    lines: list[str] = []
    for task in sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name()):
        lines.append(f"  {task.get_name()}")
        lines.extend(
            f"    {frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"
            for frame in task.get_stack(limit=STACK_FRAMES)
        )
    return "\n".join(lines)


class _JumpingSelector(selectors.BaseSelector):
    """Selector that advances the loop's clock where a real one would sleep."""

    def __init__(self) -> None:
        self._real = selectors.DefaultSelector()
        self.idle: Callable[[float | None], bool] = lambda _: True
        """Called with the time to the next timer; returns whether the clock was advanced (otherwise wait in real
        time)."""

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Registers with the real selector."""
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Unregister from the real selector."""
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Changes a registration in the real selector."""
        return self._real.modify(fileobj, events, data)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Returns the ready file objects; if there are none, advances virtual time.

        While callbacks are ready (a timeout of 0), file objects are not polled: only threads make them ready, and these
        events may wait until no callback is ready.
        """
        if timeout == 0:
            return []
        ready = self._real.select(0)
        if ready:
            return ready
        return [] if self.idle(timeout) else self._real.select(None)

    def close(self) -> None:
        """Closes the real selector."""
        self._real.close()

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """Returns the registrations of the real selector."""
        return self._real.get_map()


class _Timer(asyncio.TimerHandle):
    """Timer with a serial number, to order timers of the same time."""

    __slots__ = ("due", "serial")
    due: float
    serial: int

    def __lt__(self, other: "_Timer") -> bool:  # type: ignore[override]  # `call_at` makes every timer of the loop
        return self.serial < other.serial if self.due == other.due else self.due < other.due

    def _run(self) -> None:
        """Runs the callback, unless its owner is held: the loop makes timers ready after it has looked for those."""
        handle = cast("Any", self)
        if not cast("VirtualTimeLoop", handle._loop).defer(self):
            cast("Any", super())._run()


class _Task(asyncio.Task[T]):
    """Task with a serial number: the order of tasks that become ready together must not depend on addresses."""

    serial: int = 0


@final
class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Event loop in virtual time, which starts at 0.

    Args:
        seed: None runs tasks in the order in which they become ready, as asyncio does. A number shuffles tasks that are
            ready at the same time, reproducibly, to find code that relies on an unspecified order.
        horizon: Virtual seconds after which `TimeLimitExceeded` is raised.
    """

    simulates_time: Final = True
    """Read by the log configuration, which then uses virtual timestamps, and by the watchdog of the loop."""

    def __init__(self, *, seed: int | None = None, horizon: float = HORIZON_SECONDS) -> None:
        self._virtual_now = 0.0
        self._horizon = horizon
        self._in_threads = 0
        self._iterations = 0
        self._serials = itertools.count()
        self._awaiting_idle: list[asyncio.Future[None]] = []
        self._awaiting_timer: list[asyncio.Future[None]] = []
        self._rng = None if seed is None else random.Random(seed)  # noqa: S311 - an order, not a secret
        self._held: dict[object, list[asyncio.Handle]] = {}
        self.before_advance: Callable[[], None] | None = None
        """Called when no callback is ready, before time advances; for checks of a state that lasts."""
        selector = _JumpingSelector()
        selector.idle = self._idle
        super().__init__(selector)
        if self._rng is not None:
            self.set_task_factory(self._make_task)

    def _make_task(self, _: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Future[Any]:
        task: _Task[Any] = _Task(work, loop=self, **options)
        task.serial = next(self._serials)
        return task

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Schedules a callback; timers of the same time fire in the order in which they were set, unlike asyncio's."""
        timer = _Timer(when, callback, args, self, context)
        timer.due = when
        timer.serial = next(self._serials)
        heapq.heappush(cast("Any", self)._scheduled, timer)
        cast("Any", timer)._scheduled = True
        return timer

    def time(self) -> float:
        """Returns the virtual seconds since the loop was created."""
        return self._virtual_now

    def suspend(self, seconds: float) -> None:
        """Advances time while no task runs, as if the process were suspended (SIGSTOP, or a suspended machine).

        The caller continues at once; timers that became due fire when it awaits.
        """
        self._virtual_now += seconds

    def hold(self, owner: object) -> None:
        """Suspends the tasks of an owner (`owner` in their context), as SIGSTOP suspends a process; others continue."""
        self._held.setdefault(owner, [])

    def resume(self, owner: object) -> None:
        """Continues the tasks of an owner; timers that became due fire now."""
        cast("Any", self)._ready.extend(self._held.pop(owner, ()))

    def defer(self, handle: asyncio.Handle) -> bool:
        """Keeps a callback for `resume` if its owner is held; returns whether it is."""
        if not self._held:
            return False
        waiting = self._held.get(cast("Any", handle)._context.get(owner))
        if waiting is None:
            return False
        waiting.append(handle)
        return True

    async def wait_until_idle(self) -> None:
        """Waits until no task can run without advancing time."""
        future: asyncio.Future[None] = self.create_future()
        self._awaiting_idle.append(future)
        await future

    @property
    def next_timer_at(self) -> float | None:
        """When the next timer fires, in virtual seconds; None if no timer is set."""
        timers: list[asyncio.TimerHandle] = cast("Any", self)._scheduled
        if timers and not timers[0].cancelled():
            return timers[0].when()
        return min((timer.when() for timer in timers if not timer.cancelled()), default=None)

    async def wait_for_timer(self) -> None:
        """Waits until time has advanced to the next timer.

        Raises:
            Deadlock: No timer is set.
        """
        future: asyncio.Future[None] = self.create_future()
        self._awaiting_timer.append(future)
        await future

    def run_in_executor(self, executor: Any, func: Callable[[Unpack[Ts]], T], *args: *Ts) -> asyncio.Future[T]:
        """Runs a function in a thread; virtual time does not advance until it returns."""
        future = super().run_in_executor(executor, func, *args)
        self._in_threads += 1
        future.add_done_callback(self._thread_done)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Shuts down the executor; virtual time does not advance meanwhile, because it waits for a thread."""
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
        self._iterations = 0
        if self._in_threads:
            return False
        if self._awaiting_idle:
            _release(self._awaiting_idle)
            return True
        if self.before_advance is not None:
            self.before_advance()
            if cast("Any", self)._ready:
                return True
        if until_timer is None:
            message = f"deadlock: no callback is ready and no timer is set; tasks:\n{describe_tasks(self)}"
            raise Deadlock(message)
        self._virtual_now += until_timer
        if self._virtual_now > self._horizon:
            message = f"time limit of {self._horizon:.0f} virtual seconds exceeded; tasks:\n{describe_tasks(self)}"
            raise TimeLimitExceeded(message)
        _release(self._awaiting_timer)
        return True

    def _run_once(self) -> None:
        self._iterations += 1
        if self._iterations > INSTANT_ITERATIONS:
            self._iterations = 0
            message = (
                f"virtual time did not advance in {INSTANT_ITERATIONS} loop iterations (livelock); tasks:\n"
                f"{describe_tasks(self)}"
            )
            raise Livelock(message)
        ready: deque[asyncio.Handle] = cast("Any", self)._ready
        if self._held and ready:
            runnable = [handle for handle in ready if not self.defer(handle)]
            ready.clear()
            ready.extend(runnable)
        if self._rng is not None and len(ready) > 1:
            self._shuffle(self._rng, ready)
        cast("Any", super())._run_once()

    def _shuffle(self, rng: random.Random, ready: deque[asyncio.Handle]) -> None:
        """Shuffles the ready tasks. Plain callbacks keep their positions: asyncio guarantees their order.

        They are sorted first: a set of tasks, as in `asyncio.wait`, makes them ready in the order of their addresses.
        """
        places: list[int] = []
        steps: list[tuple[int, int, asyncio.Handle]] = []
        for place, handle in enumerate(ready):
            task: object = getattr(cast("Any", handle)._callback, "__self__", None)
            if isinstance(task, asyncio.Task):
                places.append(place)
                steps.append((getattr(cast("Any", task), "serial", 0), place, handle))
        if len(places) < 2:
            return
        steps.sort()
        handles = [handle for _, _, handle in steps]
        rng.shuffle(handles)
        for place, handle in zip(places, handles, strict=True):
            ready[place] = handle


def _release(waiting: list[asyncio.Future[None]]) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(None)
    waiting.clear()


def run(main: Coroutine[Any, Any, T], *, seed: int | None = None) -> T:
    """Runs a coroutine in virtual time."""
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(seed=seed)) as runner:
        return runner.run(main)
