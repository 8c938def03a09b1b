"""Export of spans: what configures it, and collectors that do not work."""

import subprocess
import sys
from collections.abc import Generator

import pytest

from kaito.runtime.controller import Controller
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.manager import Manager, Settings
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.reconcile import Request
from kaito.runtime.testing import World
from kaito.runtime.tracing import NO_TRACER, configured_tracer, is_configured, otlp
from test.support.collector import Collector


@pytest.fixture
def collector(request: pytest.FixtureRequest) -> Generator[Collector]:
    found = Collector(getattr(request, "param", 200))
    yield found
    found.close()


def test_an_endpoint_enables_export_and_the_standard_variables_disable_it() -> None:
    assert not is_configured("", {})
    assert is_configured("http://collector:4318", {})
    assert is_configured("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"})
    assert is_configured("", {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"})
    assert not is_configured("http://collector:4318", {"OTEL_SDK_DISABLED": "true"})
    assert not is_configured("http://collector:4318", {"OTEL_TRACES_EXPORTER": "none"})
    with configured_tracer("a", "", {}) as tracer:
        assert tracer is NO_TRACER


def test_spans_are_sent_before_the_process_ends(collector: Collector) -> None:
    with configured_tracer("a", collector.url, {}) as tracer, tracer.start_as_current_span("x"):
        pass
    assert [(span.name, span.service) for span in collector.spans] == [("x", "a")]


def test_the_environment_names_the_service(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "b")
    environ = {"OTEL_SERVICE_NAME": "b"}
    with configured_tracer("a", collector.url, environ) as tracer, tracer.start_as_current_span("x"):
        pass
    assert {span.service for span in collector.spans} == {"b"}


@pytest.mark.parametrize("collector", [500, 404, 0], indirect=True)
async def test_a_collector_that_does_not_work_delays_no_reconcile(
    world: World, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """500 is retried, 404 is not, and 0 never answers: in each case all reconciles run, and the process ends."""
    monkeypatch.setattr(otlp, "FLUSH_SECONDS", 0.05)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    runs: list[str] = []

    async def reconcile(request: Request[ConfigMap]) -> None:
        runs.append(request.key.name)
        if len(runs) == 1:
            # The exporter is busy with this span while the other reconciles fill its queue.
            assert not collector.requested.is_set()

    names = [f"c{number:03}" for number in range(100)]
    for name in names:
        world.put(ConfigMap(metadata=ObjectMeta(name=name)))
    with configured_tracer("a", collector.url, {}) as tracer:
        manager = Manager(
            Settings(metrics_bind_address="0", health_probe_bind_address="0"),
            controllers=[Controller(ConfigMap, reconcile)],
            transport=world.transport(),
            clock=world.clock,
            tracer=tracer,
        )
        async with manager:
            await world.settle()
            assert sorted(runs) == names
            assert collector.requested.wait(30)


def test_no_collector_at_all(monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int) -> None:
    monkeypatch.setattr(otlp, "FLUSH_SECONDS", 0.05)
    with configured_tracer("a", f"http://127.0.0.1:{unused_tcp_port}", {}) as tracer:
        for _ in range(5000):
            with tracer.start_as_current_span("x"):
                pass


@pytest.mark.parametrize("missing", ["opentelemetry", "opentelemetry.exporter"])
def test_the_library_is_imported_only_if_export_is_configured(missing: str) -> None:
    """And without it or without its exporter, a configured endpoint ends the program with the name of the extra."""
    program = """
import sys
sys.modules[sys.argv[1]] = None
from kaito.runtime.manager import Manager
from kaito.runtime.tracing import configured_tracer
with configured_tracer("a", "", {}) as tracer:
    Manager(tracer=tracer)
assert [name for name in sys.modules if name.startswith("opentelemetry")] == [sys.argv[1]]
with configured_tracer("a", "http://collector:4318", {}):
    pass
"""
    ended = subprocess.run([sys.executable, "-c", program, missing], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "pip install 'kaito-runtime[tracing]'" in ended.stderr.splitlines()[-1]
