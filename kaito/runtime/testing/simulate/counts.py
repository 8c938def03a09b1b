"""Counts of reconciles and requests by object and hour, and the errors of reconciles: finds hot loops and mistakes."""

from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Final, cast, final

from kaito.runtime.errors import KaitoRuntimeError
from kaito.runtime.tracing import NO_SPAN, Attribute, Span, SpanKind

WINDOW_SECONDS: Final = 3600.0

ENVIRONMENT_ERRORS: Final[tuple[type[BaseException], ...]] = (KaitoRuntimeError, OSError, TimeoutError)
"""Errors that failures of the environment cause. Others are mistakes of the operator."""

EXPECTED_ERRORS: Final = (*ENVIRONMENT_ERRORS, GeneratorExit)
"""Errors with which a reconcile may end. The end of a process closes the coroutines of its reconciles."""


@final
class HourlyCounts:
    """Counts by key in the current hour of virtual time.

    Args:
        limit: the highest count; `on_limit` is called once when it is exceeded.
        on_limit: called with the key.
        time: returns the virtual seconds.
    """

    def __init__(self, limit: int, on_limit: Callable[[tuple[str, ...]], None], time: Callable[[], float]) -> None:
        self.limit = limit
        self.highest: int = 0
        self._on_limit = on_limit
        self._time = time
        self._began = 0.0
        self._counts: Counter[tuple[str, ...]] = Counter()

    def add(self, key: tuple[str, ...]) -> None:
        """Counts one event."""
        now = self._time()
        if now - self._began >= WINDOW_SECONDS:
            self._began = now
            self._counts.clear()
        self._counts[key] += 1
        if self._counts[key] > self.highest:
            self.highest = self._counts[key]
            if self.highest == self.limit + 1:
                self._on_limit(key)


@final
class Reconciles:
    """Makes tracers that count reconciles and report unexpected errors.

    Args:
        counts: counts by process, controller and key.
        expected: errors besides `EXPECTED_ERRORS` that are not mistakes.
        on_error: called with process, controller, key and error of any other.
    """

    def __init__(
        self,
        counts: HourlyCounts,
        expected: tuple[type[BaseException], ...],
        on_error: Callable[[str, str, str, BaseException], None],
    ) -> None:
        self.total: int = 0
        self.errors: Counter[str] = Counter()
        """Number of errors of reconciles by class."""
        self._counts = counts
        self._expected = (*EXPECTED_ERRORS, *expected)
        self._on_error = on_error

    @property
    def highest(self) -> int:
        """Highest number of reconciles of one key in an hour."""
        return self._counts.highest

    def of(self, process: str) -> "ReconcileTracer":
        """Returns the tracer of a process."""
        return ReconcileTracer(self, process)

    def note(self, process: str, controller: str, key: str, error: BaseException | None) -> None:
        """Counts a reconcile."""
        self.total += 1
        self._counts.add((process, controller, key))
        if error is None:
            return
        self.errors[type(error).__name__] += 1
        if isinstance(error, Exception) and not self._is_expected(error):
            self._on_error(process, controller, key, error)

    def _is_expected(self, error: BaseException) -> bool:
        if isinstance(error, BaseExceptionGroup):
            group = cast("BaseExceptionGroup[BaseException]", error)
            return all(self._is_expected(one) for one in group.exceptions)
        return isinstance(error, self._expected)


@final
class _ReconcileSpan:
    traceparent: str = ""

    def __init__(self) -> None:
        self.values: dict[str, Attribute] = {}
        self.error: BaseException | None = None

    def set_attribute(self, key: str, value: Attribute) -> None:
        """Stores the attribute."""
        self.values[key] = value

    def record_exception(self, exception: BaseException) -> None:
        """Stores the error."""
        self.error = exception


@final
class ReconcileTracer:
    """Tracer of one process; ignores spans other than reconciles."""

    annotation: str = ""

    def __init__(self, reconciles: Reconciles, process: str) -> None:
        self._reconciles = reconciles
        self._process = process

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
        """Counts the reconcile when its span ends."""
        if not name.startswith("reconcile "):
            yield NO_SPAN
            return
        span = _ReconcileSpan()
        try:
            yield span
        finally:
            controller, key = str(span.values.get("controller", "")), str(span.values.get("key", ""))
            self._reconciles.note(self._process, controller, key, span.error)
