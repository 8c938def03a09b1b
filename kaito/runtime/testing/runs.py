"""Which reconciles ran, why, and how they ended: what a `World` remembers of the managers it makes.

A tracer like any other (`kaito.runtime.tracing`): the framework under test is not changed by it.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

from kaito.runtime.tracing import NO_SPAN, Attribute, Span


@dataclass(frozen=True, slots=True)
class Run:
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
class Runs:
    """A tracer that keeps reconciles and drops everything else."""

    def __init__(self) -> None:
        self.ended: list[Run] = []

    @contextmanager
    def start_as_current_span(self, name: str, *, attributes: Mapping[str, Attribute] | None = None) -> Generator[Span]:  # noqa: ARG002 -- the protocol's
        """A span that becomes a `Run` at its end."""
        if not name.startswith("reconcile "):
            yield NO_SPAN
            return
        span = _Attributes()
        try:
            yield span
        finally:
            said = span.values
            self.ended.append(
                Run(
                    controller=str(said.get("controller", "")),
                    key=str(said.get("key", "")),
                    causes=tuple(filter(None, str(said.get("causes", "")).split("; "))),
                    outcome=str(said.get("outcome", "")),
                    attempt=int(said.get("attempt", 0)),
                )
            )
