"""`Runnable`: what a manager runs besides controllers, anything with a name and a `run`."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from kaito.runtime.errors import KaitoRuntimeError


@runtime_checkable
class Runnable(Protocol):
    """Background work of a manager. Cancelled when the manager stops; an error stops the manager."""

    @property
    def name(self) -> str:
        """Unique in the manager, for tasks and logs."""
        ...

    @property
    def leader_elected(self) -> bool:
        """Whether it runs only while this process holds the lease."""
        ...

    async def run(self) -> None:
        """Works until cancelled. Returning is an error, unless the object has `one_shot = True`."""
        ...


@dataclass(frozen=True, slots=True)
class Background:
    """A function as a `Runnable`."""

    name: str
    function: Callable[[], Awaitable[None]]
    leader_elected: bool = True
    one_shot: bool = False
    """Whether returning is the normal end, for work that is done once."""

    async def run(self) -> None:
        """Calls the function."""
        await self.function()


class UnexpectedEnd(KaitoRuntimeError):
    """Background work returned although it should run until the manager stops."""


class ShutdownTimedOut(KaitoRuntimeError):
    """The graceful period ended; the message contains what was still running."""
