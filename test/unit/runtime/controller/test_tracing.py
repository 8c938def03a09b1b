"""Spans of reconciles with an OpenTelemetry tracer, and none without one."""

from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager

from kaito.runtime.controller import Controller
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.manager import Manager, Settings
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.reconcile import Again, Request
from kaito.runtime.testing import World
from kaito.runtime.tracing import NO_SPAN, NO_TRACER, Attribute


class SpanNotes:
    def __init__(self, name: str) -> None:
        self.name = name
        self.attributes: dict[str, Attribute] = {}
        self.errors: list[str] = []

    def set_attribute(self, key: str, value: Attribute) -> None:
        self.attributes[key] = value

    def record_exception(self, exception: BaseException) -> None:
        self.errors.append(str(exception))


class Notes:
    """The shape of `opentelemetry.trace.Tracer`."""

    def __init__(self) -> None:
        self.spans: list[SpanNotes] = []

    def start_as_current_span(
        self, name: str, *, attributes: Mapping[str, Attribute] | None = None
    ) -> AbstractContextManager[SpanNotes]:
        return self._span(name)

    @contextmanager
    def _span(self, name: str) -> Generator[SpanNotes]:
        span = SpanNotes(name)
        self.spans.append(span)
        yield span


async def test_each_run_is_a_span_with_key_causes_and_outcome(world: World) -> None:
    runs = 0

    async def converge(_: Request[ConfigMap]) -> Again | None:
        nonlocal runs
        runs += 1
        if runs == 1:
            message = "cloud is down"
            raise OSError(message)
        return None

    world.put(ConfigMap(metadata=ObjectMeta(name="a")))
    tracer = Notes()
    manager = Manager(
        Settings(metrics_bind_address="0", health_probe_bind_address="0"),
        controllers=[Controller(ConfigMap, converge)],
        transport=world.transport(),
        clock=world.clock,
        tracer=tracer,
    )
    async with manager:
        await world.advance(5)
    first, second = tracer.spans
    assert first.name == "reconcile configmap"
    assert first.attributes["key"] == "default/a"
    assert first.attributes["causes"] == "create ConfigMap default/a (initial list)"
    assert (first.attributes["outcome"], first.errors) == ("error", ["cloud is down"])
    assert (second.attributes["outcome"], second.attributes["attempt"]) == ("success", 2)
    assert second.attributes["reconcile.id"] != first.attributes["reconcile.id"]


def test_without_a_tracer_nothing_is_made() -> None:
    with NO_TRACER.start_as_current_span("x", attributes={"a": 1}) as span:
        assert span is NO_SPAN
        span.set_attribute("a", 1)
        span.record_exception(ValueError())
