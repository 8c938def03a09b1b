"""Traces reconciles and requests through OpenTelemetry's interface, without depending on a tracing library.

Give the manager any object with OpenTelemetry's `start_as_current_span`, for example
`opentelemetry.trace.get_tracer("my-operator")`. Without one, `NO_TRACER` returns a shared span that does nothing.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, final

Attribute = str | bool | int | float


class Span(Protocol):
    """The used part of an OpenTelemetry span."""

    def set_attribute(self, key: str, value: Attribute) -> None:
        """Set an attribute."""
        ...

    def record_exception(self, exception: BaseException) -> None:
        """Record an exception."""
        ...


class Tracer(Protocol):
    """The used part of an OpenTelemetry tracer."""

    def start_as_current_span(
        self, name: str, *, attributes: Mapping[str, Attribute] | None = None
    ) -> AbstractContextManager[Span]:
        """Start a span for a `with` body; spans started within become its children."""
        ...


@final
class _NoSpan(AbstractContextManager["_NoSpan"]):
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def set_attribute(self, key: str, value: Attribute) -> None:
        """Do nothing."""

    def record_exception(self, exception: BaseException) -> None:
        """Do nothing."""


NO_SPAN = _NoSpan()
"""The span of `NO_TRACER`; compare with it to skip building attributes."""


@final
class _NoTracer:
    def start_as_current_span(self, name: str, *, attributes: Mapping[str, Attribute] | None = None) -> _NoSpan:  # noqa: ARG002
        """Return `NO_SPAN`."""
        return NO_SPAN


NO_TRACER = _NoTracer()
"""Records nothing and allocates nothing."""
