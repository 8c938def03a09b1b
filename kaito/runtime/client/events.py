"""The interface between `Api` and the event recorder."""

from typing import Literal, Protocol

from kaito.runtime.meta import Resource


class EventSink(Protocol):
    """Receives events; implemented by `kaito.runtime.recorder`."""

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
        """Queues an event to be sent; does not block and does not raise."""
        ...
