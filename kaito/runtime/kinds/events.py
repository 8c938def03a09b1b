"""Events of the `events.k8s.io` group."""

from typing import TYPE_CHECKING

from pydantic import Field

from kaito.runtime.kinds.references import ObjectReference
from kaito.runtime.meta import MicroTime, Model, Resource, Time

if TYPE_CHECKING:
    from kaito.runtime.kinds.structs import EventSource
else:
    from kaito.runtime.kinds.deferred import EventSource


class EventSeries(Model):
    """Repetitions of an event."""

    count: int
    last_observed_time: MicroTime


class Event(Resource, api="events.k8s.io/v1", kind="Event"):
    """Event about an object."""

    event_time: MicroTime | None = None
    series: EventSeries | None = None
    reporting_controller: str = ""
    reporting_instance: str = ""
    action: str = ""
    reason: str = ""
    regarding: ObjectReference = Field(default_factory=ObjectReference)
    related: ObjectReference | None = None
    note: str = ""
    type: str = ""
    """`Normal` or `Warning`, or a value of a newer API server."""
    deprecated_count: int | None = None
    deprecated_first_timestamp: Time | None = None
    deprecated_last_timestamp: Time | None = None
    deprecated_source: EventSource | None = None
