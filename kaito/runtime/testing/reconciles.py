"""Records the reconciles of a `World`'s managers: key, causes and outcome.

Implemented as a tracer (`kaito.runtime.tracing`), so that it does not change the framework under test.
"""

from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, final

from kaito.runtime.clock import monotonic
from kaito.runtime.testing.virtual import Livelock
from kaito.runtime.tracing import NO_SPAN, Attribute, Span, SpanKind

RECONCILES_PER_INSTANT: Final = 2000
"""Limit of reconciles of one key at one instant of virtual time, after which a livelock is reported; takes some
seconds."""


@dataclass(frozen=True, slots=True)
class ReconcileRecord:
    """Completed call of a reconcile function."""

    controller: str
    key: str
    """The key as in logs: `default/cache`."""
    causes: tuple[str, ...]
    """The causes for which the key was queued."""
    outcome: str
    """`success`, `error`, `requeue_after` as in the metrics; empty if it was cancelled with its manager."""
    attempt: int


@final
class _Attributes:
    traceparent: str = ""

    def __init__(self) -> None:
        self.values: dict[str, Attribute] = {}

    def set_attribute(self, key: str, value: Attribute) -> None:
        """Stores the attribute."""
        self.values[key] = value

    def record_exception(self, exception: BaseException) -> None:
        """Ignores the exception: the outcome is recorded."""


@final
class ReconcileRecorder:
    """Tracer that records reconciles and ignores other spans."""

    annotation: str = ""

    def __init__(self) -> None:
        self.ended: list[ReconcileRecord] = []
        self._moment = -1.0
        self._in_moment: Counter[tuple[str, str]] = Counter()

    def _count(self, record: ReconcileRecord) -> None:
        """Detects keys that requeue themselves or each other while virtual time does not advance.

        Raises:
            Livelock: A key was reconciled too often at one instant.
        """
        now = monotonic()
        if now != self._moment:
            self._moment = now
            self._in_moment.clear()
        self._in_moment[record.controller, record.key] += 1
        if self._in_moment[record.controller, record.key] >= RECONCILES_PER_INSTANT:
            self._in_moment.clear()
            causes = "; ".join(record.causes) or "unknown"
            message = (
                f"controller {record.controller} reconciled {record.key} {RECONCILES_PER_INSTANT} times at one "
                f"instant, the last time because of: {causes}; check whether another writer reverts its changes"
            )
            raise Livelock(message)

    def record_span(
        self,
        name: str,
        *,
        start: datetime,
        end: datetime,
        parent: str,
        attributes: Mapping[str, Attribute] | None = None,
    ) -> None:
        """Ignores the span: it is not a reconcile."""

    @contextmanager
    def start_as_current_span(
        self,
        name: str,
        *,
        attributes: Mapping[str, Attribute] | None = None,  # noqa: ARG002 -- the protocol's
        kind: SpanKind = "internal",  # noqa: ARG002 -- the protocol's
        parent: str = "",  # noqa: ARG002 -- the protocol's
        link: str = "",  # noqa: ARG002 -- the protocol's
    ) -> Generator[Span]:
        """Records the reconcile when its span ends."""
        if not name.startswith("reconcile "):
            yield NO_SPAN
            return
        span = _Attributes()
        try:
            yield span
        finally:
            values = span.values
            record = ReconcileRecord(
                controller=str(values.get("controller", "")),
                key=str(values.get("key", "")),
                causes=tuple(filter(None, str(values.get("causes", "")).split("; "))),
                outcome=str(values.get("outcome", "")),
                attempt=int(values.get("attempt", 0)),
            )
            self.ended.append(record)
        self._count(record)
