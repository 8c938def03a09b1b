"""Spans of reconciles: attributes, the trace of the object, and none without a tracer."""

from datetime import UTC, datetime

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from kaito.runtime.client import MergePatch
from kaito.runtime.controller import Controller
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.manager import Manager, Settings
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.reconcile import Again, Reconciler, Request
from kaito.runtime.testing import World
from kaito.runtime.tracing import NO_SPAN, NO_TRACER, is_traceparent, trace_id
from test.support.recorded_spans import Recorded

ANNOTATION = "example.com/traceparent"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def manager_of(world: World, reconcile: Reconciler[ConfigMap], recorded: Recorded) -> Manager:
    return Manager(
        Settings(metrics_bind_address="0", health_probe_bind_address="0"),
        controllers=[Controller(ConfigMap, reconcile)],
        transport=world.transport(),
        clock=world.clock,
        tracer=recorded.tracer,
    )


def trace_of(span: ReadableSpan) -> str:
    context = span.get_span_context()
    assert context is not None
    return f"{context.trace_id:032x}"


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


async def test_each_run_is_a_span_with_key_causes_and_outcome(world: World) -> None:
    runs = 0

    async def reconcile(_: Request[ConfigMap]) -> Again | None:
        nonlocal runs
        runs += 1
        if runs == 1:
            message = "cloud is down"
            raise OSError(message)
        return None

    world.put(ConfigMap(metadata=ObjectMeta(name="a")))
    recorded = Recorded()
    async with manager_of(world, reconcile, recorded):
        await world.advance(5)
    first, second = recorded.take("reconcile")
    assert first.name == "reconcile configmap"
    assert attributes(first)["key"] == "default/a"
    assert attributes(first)["causes"] == "create ConfigMap default/a (initial list)"
    assert attributes(first)["outcome"] == "error"
    assert (first.status.status_code, first.status.description) == (StatusCode.ERROR, "OSError: cloud is down")
    assert [event.name for event in first.events] == ["exception"]
    assert (attributes(second)["outcome"], attributes(second)["attempt"]) == ("success", 2)
    assert attributes(second)["reconcile.id"] != attributes(first)["reconcile.id"]
    assert second.parent is None
    assert trace_of(first) != trace_of(second)


async def test_a_reconcile_joins_the_trace_of_its_object_and_its_requests_are_children(world: World) -> None:
    async def reconcile(request: Request[ConfigMap]) -> None:
        if "seen" not in request.object.data:
            await request.api.patch(request.object, MergePatch({"data": {"seen": "yes"}}))

    recorded = Recorded(ANNOTATION)
    world.put(ConfigMap(metadata=ObjectMeta(name="a", annotations={ANNOTATION: PARENT})))
    async with manager_of(world, reconcile, recorded):
        await world.settle()
        spans = {span.name: span for span in recorded.take()}
        assert set(spans) == {"reconcile configmap", "PATCH /api/v1/namespaces/default/configmaps/a"}
        assert {trace_of(span) for span in spans.values()} == {TRACE}
        run, patch = spans["reconcile configmap"], spans["PATCH /api/v1/namespaces/default/configmaps/a"]
        assert run.parent is not None
        assert f"{run.parent.span_id:016x}" == PARENT.split("-")[2]
        assert patch.kind is SpanKind.CLIENT
        assert attributes(patch)["http.response.status_code"] == 200

        await world.advance(25 * 3600)
        world.patch(ConfigMap, "a", {"data": {"seen": "again"}})
        await world.settle()
        (later,) = recorded.take("reconcile")
        assert later.parent is None
        assert trace_of(later) != TRACE
        assert [f"{link.context.trace_id:032x}" for link in later.links] == [TRACE]


async def test_an_invalid_annotation_is_ignored(world: World) -> None:
    async def reconcile(_: Request[ConfigMap]) -> None:
        return

    recorded = Recorded(ANNOTATION)
    world.put(ConfigMap(metadata=ObjectMeta(name="a", annotations={ANNOTATION: "00-nonsense"})))
    async with manager_of(world, reconcile, recorded):
        await world.settle()
    (span,) = recorded.take("reconcile")
    assert span.parent is None
    assert not span.links


def test_a_client_span_needs_a_parent() -> None:
    recorded = Recorded()
    with recorded.tracer.start_as_current_span("GET /a", kind="client") as span:
        assert span is NO_SPAN
    with recorded.tracer.start_as_current_span("POST /b", kind="server", parent=PARENT) as outer:
        assert trace_id(outer.traceparent) == TRACE
        with recorded.tracer.start_as_current_span("GET /c", kind="client"):
            pass
    child, parent = recorded.take()
    assert (child.name, child.kind, parent.kind) == ("GET /c", SpanKind.CLIENT, SpanKind.SERVER)
    assert trace_of(child) == TRACE


def test_a_span_of_the_past_has_its_times_and_needs_a_parent() -> None:
    recorded = Recorded()
    start, end = datetime(2030, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, 0, 5, tzinfo=UTC)
    recorded.tracer.record_span("launch", start=start, end=end, parent="")
    recorded.tracer.record_span("launch", start=start, end=end, parent=PARENT, attributes={"claim": "a"})
    (span,) = recorded.take()
    assert (trace_of(span), attributes(span)) == (TRACE, {"claim": "a"})
    assert (span.start_time, span.end_time) == (start.timestamp() * 1e9, end.timestamp() * 1e9)


def test_only_valid_contexts_are_accepted() -> None:
    assert is_traceparent(PARENT)
    assert is_traceparent(f"cc-{TRACE}-b7ad6b7169203331-01-what-the-future-brings")
    invalid = ["", "00", f"ff-{TRACE}-b7ad6b7169203331-01", f"00-{'0' * 32}-b7ad6b7169203331-01"]
    invalid += [f"00-{TRACE}-{'0' * 16}-01", PARENT.upper(), f"{PARENT}\n", f"{PARENT}-00", f"{PARENT}-"]
    assert [text for text in invalid if is_traceparent(text)] == []
    assert (trace_id(PARENT), trace_id("x")) == (TRACE, "")


def test_without_a_tracer_nothing_is_made() -> None:
    with NO_TRACER.start_as_current_span("x", attributes={"a": 1}) as span:
        assert span is NO_SPAN
        assert span.traceparent == ""
        span.set_attribute("a", 1)
        span.record_exception(ValueError())
    NO_TRACER.record_span("x", start=datetime.now(UTC), end=datetime.now(UTC), parent=PARENT)
