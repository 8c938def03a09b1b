"""What else a manager runs besides controllers: anything with a name and a `run`."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from kaito.runtime.errors import KaitoRuntimeError


@runtime_checkable
class Runnable(Protocol):
    """Work for the length of the manager's life. Cancelled at its end; an error in it stops the manager."""

    @property
    def name(self) -> str:
        """Unique in the manager; names the task and the log lines."""
        ...

    @property
    def leader_elected(self) -> bool:
        """Run only while this process holds the lease."""
        ...

    async def run(self) -> None:
        """Work until cancelled. Returning early counts as an error, unless the object has `one_shot = True`."""
        ...


@dataclass(frozen=True, slots=True)
class Background:
    """A function as a `Runnable`."""

    name: str
    function: Callable[[], Awaitable[None]]
    leader_elected: bool = True
    one_shot: bool = False
    """Returning is the normal end: for work that is done once."""

    async def run(self) -> None:
        """Call the function."""
        await self.function()


class UnexpectedEnd(KaitoRuntimeError):
    """Something that runs for the manager's whole life returned by itself. It would be missed silently otherwise."""


class ShutdownTimedOut(KaitoRuntimeError):
    """The graceful period ran out; the message names what was still running."""
