"""Spans and tracers as protocols, the tracer that records nothing, and the form of a trace context."""

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from types import TracebackType
from typing import Final, Literal, Protocol, final

Attribute = str | bool | int | float

SpanKind = Literal["internal", "server", "client"]
"""Role of a span: work of this process, a request that it answers, or a request that it sends."""

TRACEPARENT: Final = "traceparent"
"""Header with a trace context (W3C Trace Context)."""

# Version ff and zero IDs are not valid. Later versions can have further fields, version 00 has none.
_TRACEPARENT = re.compile(r"(?!ff|00-.{52}-)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


class Span(Protocol):
    """A span that has started."""

    @property
    def traceparent(self) -> str:
        """The context of the span as a `traceparent` header; empty if nothing is recorded."""
        ...

    def set_attribute(self, key: str, value: Attribute) -> None:
        """Sets an attribute."""
        ...

    def record_exception(self, exception: BaseException) -> None:
        """Records an exception; the span has failed."""
        ...


class Tracer(Protocol):
    """Starts spans."""

    @property
    def annotation(self) -> str:
        """Annotation of objects with the context of their trace; empty if reconciles have traces of their own."""
        ...

    def start_as_current_span(
        self,
        name: str,
        *,
        attributes: Mapping[str, Attribute] | None = None,
        kind: SpanKind = "internal",
        parent: str = "",
        link: str = "",
    ) -> AbstractContextManager[Span]:
        """Starts a span for a `with` body; spans started within become its children.

        Args:
            name: what happens; few different values.
            attributes: what it happens to.
            kind: role of the span.
            parent: `traceparent` of the parent; the current span by default.
            link: `traceparent` of a span of another trace that this one refers to.
        """
        ...

    def record_span(
        self,
        name: str,
        *,
        start: datetime,
        end: datetime,
        parent: str,
        attributes: Mapping[str, Attribute] | None = None,
    ) -> None:
        """Records a span of the past, for example a phase whose times an object contains."""
        ...


@final
class _NoSpan(AbstractContextManager["_NoSpan"]):
    traceparent: str = ""

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def set_attribute(self, key: str, value: Attribute) -> None:
        """Does nothing."""

    def record_exception(self, exception: BaseException) -> None:
        """Does nothing."""


NO_SPAN = _NoSpan()
"""The span of `NO_TRACER`; compare with it to skip building attributes."""


@final
class _NoTracer:
    annotation: str = ""

    def start_as_current_span(
        self,
        name: str,  # noqa: ARG002
        *,
        attributes: Mapping[str, Attribute] | None = None,  # noqa: ARG002
        kind: SpanKind = "internal",  # noqa: ARG002
        parent: str = "",  # noqa: ARG002
        link: str = "",  # noqa: ARG002
    ) -> _NoSpan:
        """Returns `NO_SPAN`."""
        return NO_SPAN

    def record_span(
        self,
        name: str,
        *,
        start: datetime,
        end: datetime,
        parent: str,
        attributes: Mapping[str, Attribute] | None = None,
    ) -> None:
        """Does nothing."""


NO_TRACER = _NoTracer()
"""Records nothing and allocates nothing."""


def is_traceparent(text: str) -> bool:
    """Whether the text is a valid `traceparent`: version, trace ID, span ID and flags."""
    return _TRACEPARENT.fullmatch(text) is not None


def trace_id(traceparent: str) -> str:
    """The trace ID of a `traceparent`, 32 hexadecimal digits; empty if it is not valid."""
    return traceparent[3:35] if is_traceparent(traceparent) else ""
