"""The trace that a reconcile belongs to: that of its object, from an annotation with a W3C trace context."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeVar

from kaito.runtime.cache import Cache
from kaito.runtime.clock import Clock
from kaito.runtime.errors import KaitoRuntimeError
from kaito.runtime.meta import ObjectKey, Resource
from kaito.runtime.tracing import is_traceparent

R = TypeVar("R", bound=Resource)

JOINED_FOR: Final = timedelta(hours=24)
"""Age of an object up to which its reconciles are part of its trace. Later ones have traces of their own with a link to
it: trace stores limit the size and the duration of a trace, and what is traced is how the object became ready."""


@dataclass(frozen=True, slots=True)
class TraceOrigin:
    """Parent or link of a reconcile's span; both empty for a trace of its own."""

    parent: str = ""
    link: str = ""


NO_ORIGIN: Final = TraceOrigin()


def origin_of(obj: Resource, annotation: str, now: datetime) -> TraceOrigin:
    """The origin of a reconcile of the object: its parent for a day after the object's creation, then a link.

    Without an annotation (an empty name, that of a tracer without one) the reconcile has a trace of its own.
    """
    traceparent = obj.metadata.annotations.get(annotation, "")
    if not is_traceparent(traceparent):
        return NO_ORIGIN
    created = obj.metadata.creation_timestamp
    is_new = created is None or now - created < JOINED_FOR
    return TraceOrigin(parent=traceparent) if is_new else TraceOrigin(link=traceparent)


def object_origins(kind: type[R], cache: Cache, annotation: str, clock: Clock) -> Callable[[ObjectKey], TraceOrigin]:
    """Returns a function that finds the origin by the key of a cached object."""

    def find(key: ObjectKey) -> TraceOrigin:
        try:
            obj = cache.get(kind, key)
        except KaitoRuntimeError:  # reported by the reconcile, which reads the object, too
            return NO_ORIGIN
        return NO_ORIGIN if obj is None else origin_of(obj, annotation, clock.now())

    return find
