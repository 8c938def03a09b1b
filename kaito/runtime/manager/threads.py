"""Counts work in threads, so that a stop can wait for it and does not release the lease while it runs.

A thread cannot be cancelled. `asyncio.to_thread` and `loop.run_in_executor(None, ...)` run in the loop's default
executor; a manager puts its own there, which knows what runs and on whose behalf: the context of a task, which its
sub-tasks and the handlers of its servers inherit, names the manager. A process that is the manager's (`Manager.run`)
looks at all its other threads as well.
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
from kaito.runtime.manager.health.loop_watchdog import in_real_time

P = ParamSpec("P")
T = TypeVar("T")

LOOK_SECONDS: Final = 0.02
"""Between two looks whether threads have ended."""

MOMENT_SECONDS: Final = 1.0
"""Real time for threads where time is simulated: the simulated seconds pass at once."""

_log = get_logger(__name__)


@final
@dataclass(eq=False, slots=True)
class _Call:
    """A function that was given to the executor and has not returned."""

    what: str
    owner: "Threads | None"


@final
class CountingExecutor(ThreadPoolExecutor):
    """The default executor of a loop with managers.

    Args:
        inner: the executor that was there before, which goes on doing the work; None to do it here.
    """

    def __init__(self, inner: ThreadPoolExecutor | None = None) -> None:
        super().__init__(thread_name_prefix="manager")
        self._inner = inner
        self.calls: set[_Call] = set()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As the base class; counted until it returns."""
        call = _Call(_described(fn), _owner.get())
        if fn is not socket.getaddrinfo:  # changes nothing anywhere, and a name server may be slow
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
        """As the base class, the executor from before included."""
        if self._inner is not None:
            self._inner.shutdown(wait, cancel_futures=cancel_futures)
        super().shutdown(wait, cancel_futures=cancel_futures)


_executors: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, CountingExecutor]" = weakref.WeakKeyDictionary()
_owner: "ContextVar[Threads | None]" = ContextVar("kaito_runtime_threads", default=None)


def counting_executor() -> CountingExecutor:
    """The running loop's default executor, made to count if it does not."""
    loop = asyncio.get_running_loop()
    current: object = getattr(loop, "_default_executor", None)  # public nowhere
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
        self._before: frozenset[threading.Thread] | None = None
        self.given_up: bool = False
        """Whether the last wait was in vain."""

    def own_process(self) -> None:
        """Count every thread of the process that starts from now on, daemons apart."""
        self._before = frozenset(threading.enumerate())

    def attach(self) -> None:
        """Count what the running loop's default executor does."""
        self._executor = counting_executor()

    @contextmanager
    def owning(self) -> Generator[None]:
        """What is started inside, and by what is started inside, works on behalf of this manager."""
        token = _owner.set(self)
        try:
            yield
        finally:
            _owner.reset(token)

    def busy(self) -> list[str]:
        """What is going on in threads."""
        calls = list(self._executor.calls) if self._executor is not None else []
        mine = [f"thread of {call.what}" for call in calls if call.owner is self or self._before is not None]
        return sorted(mine + self._others())

    def _others(self) -> list[str]:
        """Threads that the default executor did not start; those of other executors only while they work."""
        if self._before is None:
            return []
        frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage] -- documented, despite its name
        found: list[str] = []
        for thread in threading.enumerate():
            frame = frames.get(thread.ident or 0)
            if thread in self._before or thread.daemon or frame is None:
                continue
            code = frame.f_code
            if code.co_name == "_worker" and code.co_filename.endswith("concurrent/futures/thread.py"):
                continue  # waits for work
            if self._executor is not None and thread in self._executor._threads:
                continue  # its call is counted
            found.append(f"thread {thread.name} at {code.co_filename}:{frame.f_lineno} in {code.co_name}")
        return found

    async def wait(self, seconds: float) -> list[str]:
        """Wait until no thread works any more, `seconds` at most; what is going on then."""
        busy = self.busy()
        if not busy:
            return busy
        _log.info("waiting for threads", threads=busy, seconds=round(max(0.0, seconds), 1))
        if not in_real_time(asyncio.get_running_loop()):
            until = time.monotonic() + MOMENT_SECONDS
            while time.monotonic() < until and self.busy():
                time.sleep(0.001)  # noqa: ASYNC251 - nothing else may happen in this moment
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            busy = self.busy()
            if not busy or asyncio.get_running_loop().time() >= deadline:
                self.given_up = bool(busy)
                return busy
            await asyncio.sleep(LOOK_SECONDS)


def _described(function: Callable[..., Any]) -> str:
    """The function's name, and that of the task that calls it."""
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
