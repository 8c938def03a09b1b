"""Counts work in threads, so that a manager waits for it before it stops and releases the lease.

A thread cannot be cancelled. `asyncio.to_thread` and `loop.run_in_executor(None, ...)` use the loop's default executor.
A manager installs one that counts its calls and the manager they belong to: a context variable, which sub-tasks and the
handlers of its servers inherit, holds the manager. `Manager.run`, which has the process for itself, counts all other
threads as well.
"""

import asyncio
import functools
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, ParamSpec, TypeVar, final

from kaito.runtime.logging import get_logger
from kaito.runtime.manager.health.loop_watchdog import uses_real_time

P = ParamSpec("P")
T = TypeVar("T")

POLL_SECONDS: Final = 0.02
"""Interval at which `wait` checks the threads."""

REAL_SECONDS: Final = 1.0
"""Real time that threads get with a simulated clock, whose seconds pass at once."""

_log = get_logger(__name__)


@final
@dataclass(eq=False, slots=True)
class _Call:
    """A call in the executor that has not returned."""

    description: str
    owner: "Threads | None"


@final
class CountingExecutor(ThreadPoolExecutor):
    """The default executor of a loop with managers.

    Args:
        inner: the previous default executor, which still runs the calls; None to run them here.
    """

    def __init__(self, inner: ThreadPoolExecutor | None = None) -> None:
        super().__init__(thread_name_prefix="manager")
        self._inner = inner
        self.calls: set[_Call] = set()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Submits a call and counts it until it returns."""
        call = _Call(_describe(fn), _owner.get())
        if fn is not socket.getaddrinfo:  # has no side effect, and a slow name server must not delay the stop
            self.calls.add(call)
        try:
            submit = super().submit if self._inner is None else self._inner.submit
            future = submit(fn, *args, **kwargs)
        except BaseException:
            self.calls.discard(call)
            raise
        future.add_done_callback(lambda _: self.calls.discard(call))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shuts down this executor and the inner one."""
        if self._inner is not None:
            self._inner.shutdown(wait, cancel_futures=cancel_futures)
        super().shutdown(wait, cancel_futures=cancel_futures)


_executors: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, CountingExecutor]" = weakref.WeakKeyDictionary()
_owner: "ContextVar[Threads | None]" = ContextVar("kaito_runtime_threads", default=None)


def counting_executor() -> CountingExecutor:
    """The running loop's default executor; replaces one that does not count."""
    loop = asyncio.get_running_loop()
    current: object = getattr(loop, "_default_executor", None)  # asyncio has no public accessor
    known = _executors.get(loop)
    if known is not None and current in {known, None}:
        return known
    made = CountingExecutor(current if isinstance(current, ThreadPoolExecutor) else None)
    loop.set_default_executor(made)
    _executors[loop] = made
    return made


@final
class Threads:
    """The threads that work on behalf of one manager."""

    def __init__(self) -> None:
        self._executor: CountingExecutor | None = None
        self._earlier: frozenset[threading.Thread] | None = None
        self.timed_out: bool = False
        """Whether the last `wait` ended before all threads did."""

    def count_process_threads(self) -> None:
        """Counts every non-daemon thread of the process that starts from now on."""
        self._earlier = frozenset(threading.enumerate())

    def attach(self) -> None:
        """Counts the calls of the running loop's default executor."""
        self._executor = counting_executor()

    @contextmanager
    def as_owner(self) -> Generator[None]:
        """Counts the threads of tasks that are started within, directly or indirectly, as this manager's."""
        token = _owner.set(self)
        try:
            yield
        finally:
            _owner.reset(token)

    def busy(self) -> list[str]:
        """Descriptions of the threads that work now."""
        calls = list(self._executor.calls) if self._executor is not None else []
        counted = [f"thread of {call.description}" for call in calls if call.owner is self or self._earlier is not None]
        return sorted(counted + self._others())

    def _others(self) -> list[str]:
        """Threads that the default executor did not start; threads of other executors only while they run a call."""
        if self._earlier is None:
            return []
        frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage] -- documented, despite its name
        found: list[str] = []
        for thread in threading.enumerate():
            frame = frames.get(thread.ident or 0)
            if thread in self._earlier or thread.daemon or frame is None:
                continue
            code = frame.f_code
            if code.co_name == "_worker" and code.co_filename.endswith("concurrent/futures/thread.py"):
                continue  # an idle thread of an executor
            if self._executor is not None and thread in self._executor._threads:
                continue  # counted by its call
            found.append(f"thread {thread.name} at {code.co_filename}:{frame.f_lineno} in {code.co_name}")
        return found

    async def wait(self, seconds: float) -> list[str]:
        """Waits until no thread works, `seconds` at most; descriptions of the threads that still work then."""
        busy = self.busy()
        if not busy:
            return busy
        _log.info("waiting for threads", threads=busy, seconds=round(max(0.0, seconds), 1))
        if not uses_real_time(asyncio.get_running_loop()):
            until = time.monotonic() + REAL_SECONDS
            while time.monotonic() < until and self.busy():
                time.sleep(0.001)  # noqa: ASYNC251 - the loop must not advance the simulated clock meanwhile
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            busy = self.busy()
            if not busy or asyncio.get_running_loop().time() >= deadline:
                self.timed_out = bool(busy)
                return busy
            await asyncio.sleep(POLL_SECONDS)


def _describe(function: Callable[..., Any]) -> str:
    """The names of the function and of the task that calls it."""
    inner: Any = function
    while isinstance(inner, functools.partial):
        is_context = getattr(inner.func, "__name__", "") == "run" and inner.args
        inner = inner.args[0] if is_context else inner.func
    module, name = getattr(inner, "__module__", None), getattr(inner, "__qualname__", None) or repr(inner)
    where = f"{module}.{name}" if module else name
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return f"{where} ({task.get_name()})" if task is not None else where
