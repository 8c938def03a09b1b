"""`EventList`: an event sink for unit tests of code that records events."""

from dataclasses import dataclass
from typing import final

from kaito.runtime.meta import Resource
from kaito.runtime.recorder import EventType


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """One call of `record`."""

    regarding: Resource
    type: EventType
    reason: str
    note: str
    action: str


@final
class EventList:
    """An event sink that keeps all events."""

    def __init__(self) -> None:
        self.events: list[RecordedEvent] = []

    def record(
        self,
        regarding: Resource,
        type: EventType,  # noqa: A002 -- the API's word
        reason: str,
        note: str,
        *,
        action: str,
        related: Resource | None = None,  # noqa: ARG002 -- the protocol's
    ) -> None:
        """Keeps the event."""
        self.events.append(RecordedEvent(regarding, type, reason, note, action))

    @property
    def reasons(self) -> list[str]:
        """The reasons in order."""
        return [event.reason for event in self.events]
