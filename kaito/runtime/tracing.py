"""Spans around reconciles and whatever they do, in OpenTelemetry's shape, for free when nobody asks.

Give the manager any object with OpenTelemetry's `start_as_current_span`, for example
`opentelemetry.trace.get_tracer("my-operator")`. Without one, `NO_TRACER` hands out one shared span that does nothing.
This module depends on no tracing library.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, final

Attribute = str | bool | int | float


class Span(Protocol):
    """The part of an OpenTelemetry span that is used here."""

    def set_attribute(self, key: str, value: Attribute) -> None:
        """Attach a value."""
        ...

    def record_exception(self, exception: BaseException) -> None:
        """Attach a failure."""
        ...


class Tracer(Protocol):
    """The part of an OpenTelemetry tracer that is used here."""

    def start_as_current_span(
        self, name: str, *, attributes: Mapping[str, Attribute] | None = None
    ) -> AbstractContextManager[Span]:
        """A span for the length of a `with` body; spans started inside become its children."""
        ...


@final
class _NoSpan(AbstractContextManager["_NoSpan"]):
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def set_attribute(self, key: str, value: Attribute) -> None:
        """Dropped."""

    def record_exception(self, exception: BaseException) -> None:
        """Dropped."""


NO_SPAN = _NoSpan()
"""Drops everything; compare with it to skip building attributes."""


@final
class _NoTracer:
    def start_as_current_span(self, name: str, *, attributes: Mapping[str, Attribute] | None = None) -> _NoSpan:  # noqa: ARG002
        """Always the same span."""
        return NO_SPAN


NO_TRACER = _NoTracer()
"""Traces nothing and allocates nothing."""
