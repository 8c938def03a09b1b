"""Which reconciles ran, why, and how they ended: what a `World` remembers of the managers it makes.

A tracer like any other (`kaito.runtime.tracing`): the framework under test is not changed by it.
"""

from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, final

from kaito.runtime.clock import monotonic
from kaito.runtime.testing.virtual import Livelock
from kaito.runtime.tracing import NO_SPAN, Attribute, Span

RECONCILES_PER_INSTANT: Final = 2000
"""Reconciles of one key within one moment after which it is fighting with another writer; some seconds of work."""


@dataclass(frozen=True, slots=True)
class ReconcileRecord:
    """One call of a reconcile function, ended."""

    controller: str
    key: str
    """As logs show it: `default/cache`."""
    causes: tuple[str, ...]
    """What put the key into the queue."""
    outcome: str
    """`success`, `error`, `requeue_after` as in the metrics; empty for one that was cancelled with its manager."""
    attempt: int


@final
class _Attributes:
    def __init__(self) -> None:
        self.values: dict[str, Attribute] = {}

    def set_attribute(self, key: str, value: Attribute) -> None:
        """Keep it."""
        self.values[key] = value

    def record_exception(self, exception: BaseException) -> None:
        """The outcome tells enough."""


@final
class ReconcileRecorder:
    """A tracer that keeps reconciles and drops everything else."""

    def __init__(self) -> None:
        self.ended: list[ReconcileRecord] = []
        self._moment = -1.0
        self._in_moment: Counter[tuple[str, str]] = Counter()

    def _count(self, record: ReconcileRecord) -> None:
        """Notice keys that wake themselves, or each other, while time stands still.

        Raises:
            Livelock: a key ran too often within a moment.
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

    @contextmanager
    def start_as_current_span(self, name: str, *, attributes: Mapping[str, Attribute] | None = None) -> Generator[Span]:  # noqa: ARG002 -- the protocol's
        """A span that becomes a `ReconcileRecord` at its end."""
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
