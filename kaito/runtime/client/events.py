"""The seam between `Api` and whatever takes events."""

from typing import Literal, Protocol

from kaito.runtime.meta import Resource


class EventSink(Protocol):
    """Takes events; `kaito.runtime.recorder` is one."""

    def record(
        self,
        regarding: Resource,
        type: Literal["Normal", "Warning"],  # noqa: A002 -- the API's word
        reason: str,
        note: str,
        *,
        action: str,
        related: Resource | None = None,
    ) -> None:
        """Send the event some time; never blocks, never raises."""
        ...
