"""Spans of the servers: their parents, what configures them, the header for the engine, a collector that is down."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientSession, web
from kaito_presets.serving import tracing as module
from kaito_presets.serving.tracing import Phases, Tracing, resource_attributes, start_tracing, traces_endpoint
from kaito_presets.tuning.progress import Progress
from kaito_presets.vllm.launch import plan_launch
from kaito_presets.vllm.options import read_options
from kaito_presets.vllm.proxy import Proxy
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


class Recorded:
    def __init__(self, workspace: str = "") -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(provider, workspace)

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self._exporter.get_finished_spans()}


def ids(span: ReadableSpan) -> tuple[str, str, str]:
    """Trace, span and parent."""
    context = span.get_span_context()
    assert context is not None
    parent = f"{span.parent.span_id:016x}" if span.parent is not None else ""
    return f"{context.trace_id:032x}", f"{context.span_id:016x}", parent


def test_phases_of_a_start_are_children_of_the_workspace() -> None:
    recorded = Recorded(PARENT)
    recorded.tracing.record_phases("start server", {"load model": 1_000, "warm up": 5_000})
    spans = recorded.spans()
    start = spans["start server"]
    assert ids(start)[0::2] == (TRACE, "b7ad6b7169203331")
    assert {name: ids(spans[name])[2] for name in ("load model", "warm up")} == dict.fromkeys(
        ("load model", "warm up"), ids(start)[1]
    )
    assert (spans["load model"].start_time, spans["load model"].end_time) == (1_000, 5_000)
    assert spans["warm up"].end_time == start.end_time


def test_an_invalid_context_starts_a_trace() -> None:
    recorded = Recorded("nonsense")
    recorded.tracing.record_phases("start server", {"load model": 1_000})
    assert ids(recorded.spans()["start server"])[2] == ""


def test_phases_of_tuning_are_those_of_the_progress() -> None:
    progress = Progress()
    for phase in ("data", "loading", "training", "training", "saving"):
        progress.set_phase(phase)
    assert list(progress.phases.moments) == ["starting", "data", "loading", "training", "saving"]


def test_a_phase_that_begins_twice_goes_on() -> None:
    phases = Phases("load model")
    first = phases.moments["load model"]
    phases.begin("load model")
    assert phases.moments == {"load model": first}


@pytest.fixture
async def runners() -> AsyncIterator[list[web.AppRunner]]:
    found: list[web.AppRunner] = []
    yield found
    for runner in reversed(found):
        await runner.cleanup()


async def listen(app: web.Application, runners: list[web.AppRunner]) -> str:
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    runners.append(runner)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return f"http://127.0.0.1:{runner.addresses[0][1]}"


async def proxied(runners: list[web.AppRunner], tracing: Tracing | None = None) -> tuple[str, list[list[str]]]:
    """URL of a proxy, and the `traceparent` headers of each request that its engine gets."""
    headers: list[list[str]] = []

    async def complete(request: web.Request) -> web.Response:
        headers.append(request.headers.getall("traceparent", []))
        return web.json_response({"choices": []})

    engine = web.Application()
    engine.router.add_post("/v1/completions", complete)
    proxy = Proxy(await listen(engine, runners), model="phi", tracing=tracing)
    proxy.state = "Healthy"
    return await listen(proxy.application(), runners), headers


async def test_a_request_joins_the_clients_trace_and_the_engine_joins_the_request(
    runners: list[web.AppRunner],
) -> None:
    recorded = Recorded()
    url, headers = await proxied(runners, recorded.tracing)
    async with ClientSession() as session:
        path = f"{url}/v1/completions"
        async with session.post(path, json={"model": "phi"}, headers={"Traceparent": PARENT}) as response:
            assert response.status == 200
        async with session.get(f"{url}/progress") as response:
            assert response.status == 200
    (span,) = recorded.spans().values()
    assert span.name == "POST /v1/completions"
    assert ids(span)[0::2] == (TRACE, "b7ad6b7169203331")
    assert dict(span.attributes or {})["http.response.status_code"] == 200
    (sent,) = headers
    assert [header.rpartition("-")[0] for header in sent] == [f"00-{TRACE}-{ids(span)[1]}"]


async def test_without_tracing_the_header_passes_unchanged(runners: list[web.AppRunner]) -> None:
    url, headers = await proxied(runners)
    async with (
        ClientSession() as session,
        session.post(f"{url}/v1/completions", json={}, headers={"traceparent": PARENT}) as response,
    ):
        assert response.status == 200
    assert headers == [[PARENT]]


def test_the_environment_configures_the_export() -> None:
    base = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318/"}
    assert traces_endpoint({}) == ""
    assert traces_endpoint(base) == "http://collector:4318/v1/traces"
    assert traces_endpoint({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/x"}) == "http://c/x"
    assert traces_endpoint({**base, "OTEL_SDK_DISABLED": "true"}) == ""
    assert traces_endpoint({**base, "OTEL_SDK_DISABLED": " True"}) == ""
    assert traces_endpoint({**base, "OTEL_TRACES_EXPORTER": "none"}) == ""
    assert traces_endpoint({**base, "OTEL_TRACES_EXPORTER": "None "}) == ""
    assert traces_endpoint({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}) == ""
    assert not start_tracing("kaito-inference", {}).is_on


def test_the_environment_names_the_service() -> None:
    assert resource_attributes("kaito-vllm", {"HOSTNAME": "a-0"})["service.name"] == "kaito-vllm"
    for named in ({"OTEL_SERVICE_NAME": "b"}, {"OTEL_RESOURCE_ATTRIBUTES": "kaito.workspace=w,service.name=b"}):
        assert "service.name" not in resource_attributes("kaito-vllm", named)


def test_a_collector_that_is_down_delays_neither_requests_nor_the_end(
    monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    monkeypatch.setattr(module, "FLUSH_SECONDS", 0.05)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{unused_tcp_port}")
    tracing = start_tracing("kaito-inference", os.environ)
    assert tracing.is_on
    for _ in range(5000):
        with tracing.request("POST /chat", ""):
            pass
    tracing.close()


def test_vllm_exports_to_the_same_collector(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def flags(*given: str) -> object:
        return plan_launch(read_options([f"--model={tmp_path}", *given]), (), tmp_path).flags.get(
            "otlp-traces-endpoint"
        )

    assert flags() is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    assert flags() == "http://collector:4318/v1/traces"
    assert flags("--otlp-traces-endpoint=http://other:4318/v1/traces") == "http://other:4318/v1/traces"
