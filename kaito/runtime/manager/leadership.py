"""`Leadership`: the manager's interface to leader election, whichever thread renews the lease."""

from typing import Protocol


class Leadership(Protocol):
    """Acquires one lease and renews it."""

    async def start(self) -> None:
        """Starts to campaign."""
        ...

    async def elected(self) -> None:
        """Waits until this process leads."""
        ...

    async def lost(self) -> str:
        """Waits until this process no longer leads; the reason."""
        ...

    def check(self) -> None:
        """Fences a write: called before each.

        Raises:
            NotLeader: this process may no longer be the leader.
        """
        ...

    @property
    def remaining(self) -> float:
        """Remaining seconds in which writes pass the fence; 0 when they do not."""
        ...

    def late(self) -> str | None:
        """Why the renewals are late, for the health check; None if they are not, or another process leads."""
        ...

    async def stop(self, *, release: bool) -> None:
        """Stops campaigning. `release` releases the lease at once, which is safe only after elected work has
        stopped."""
        ...
