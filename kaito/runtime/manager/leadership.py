"""What the manager needs of leader election: a seam, so that it does not matter in which thread the lease is kept."""

from typing import Protocol


class Leadership(Protocol):
    """A campaign for one lease, and holding it."""

    async def start(self) -> None:
        """Begin to campaign."""
        ...

    async def elected(self) -> None:
        """Wait until this process leads."""
        ...

    async def lost(self) -> str:
        """Wait until it no longer does; the reason."""
        ...

    def check(self) -> None:
        """The fence: called before every write.

        Raises:
            NotLeader: this process cannot be sure to be the leader.
        """
        ...

    @property
    def remaining(self) -> float:
        """Seconds for which writes pass the fence; 0 when they do not."""
        ...

    def late(self) -> str | None:
        """What is wrong with the renewals, for the health check; None when all is well or another leads."""
        ...

    async def stop(self, *, release: bool) -> None:
        """Campaign no more. `release` hands the lease over at once; only after everything elected has stopped."""
        ...
