"""Runs the lifespan of a manager: a context manager around its controllers, entered and left in a task of its own.

The task is the same at both ends, as task groups, timeouts and cancel scopes inside of the context need it. A failure
of the context while the manager runs stops the manager.
"""

import asyncio
import inspect
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import cast, final

from kaito.runtime.errors import ConfigurationError
from kaito.runtime.manager.runnable import ShutdownTimedOut


@final
class RunningLifespan:
    """The lifespan of one manager.

    Args:
        make: Makes the context, once.
    """

    def __init__(self, make: Callable[[], AbstractAsyncContextManager[object]]) -> None:
        self._make = make
        self._entered = asyncio.Event()
        self._closing = asyncio.Event()
        self._closed = asyncio.Event()
        self.state: object = None
        """What the context yielded; None outside of it."""
        self.close_error: Exception | None = None
        """The error with which the context was left at a stop."""

    @property
    def is_entered(self) -> bool:
        """Whether the state exists."""
        return self._entered.is_set() and not self._closed.is_set()

    async def run(self) -> None:
        """Enters the context, and leaves it when `close` is called.

        Raises:
            ConfigurationError: The function returned something other than an async context manager.
        """
        try:
            async with _checked(self._make()) as state:
                self.state = state
                self._entered.set()
                await self._closing.wait()
        except Exception as error:
            if self._closing.is_set():
                self.close_error = error
            raise
        finally:
            self.state = None
            self._closed.set()

    async def wait_entered(self) -> None:
        """Waits until the state exists. If the context fails, the failure of its task cancels this."""
        await self._entered.wait()

    async def close(self, timeout: float) -> None:
        """Leaves the context, and waits for that `timeout` seconds at most; at once if it has not been entered."""
        self._closing.set()
        if not self.is_entered:
            return  # the caller cancels the task: what the context has opened is closed as for an error
        try:
            async with asyncio.timeout(timeout):
                await self._closed.wait()
        except TimeoutError:  # the caller cancels the task
            self.close_error = ShutdownTimedOut(f"closing the lifespan was cancelled after {timeout:g} s")


def check_lifespan(lifespan: object) -> None:
    """Raises ConfigurationError unless it is a function of one argument, the manager, and no bare async generator."""
    if inspect.isasyncgenfunction(lifespan):
        message = f"lifespan={lifespan.__name__} is an async generator: decorate it with contextlib.asynccontextmanager"
        raise ConfigurationError(message)
    if not callable(lifespan):
        message = f"lifespan= takes a function of the manager that returns an async context manager, not {lifespan!r}"
        raise ConfigurationError(message)
    try:
        inspect.signature(lifespan).bind(object())
    except TypeError as error:
        name = getattr(lifespan, "__name__", lifespan)
        message = f"lifespan={name} is called with one argument, the manager: {error}"
        raise ConfigurationError(message) from error
    except ValueError:
        return  # some builtins have no signature


def _checked(context: object) -> AbstractAsyncContextManager[object]:
    if isinstance(context, AbstractAsyncContextManager):
        return cast("AbstractAsyncContextManager[object]", context)
    if inspect.iscoroutine(context):
        context.close()
    message = f"lifespan= returned {context!r}, which is not an async context manager"
    raise ConfigurationError(message)
