"""Metrics: the names that dashboards know, and what they show."""

import asyncio

import pytest

from kaito.runtime.clock import monotonic
from kaito.runtime.controller import Controller
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.metrics import Metrics, RequestMetrics
from kaito.runtime.reconcile import Again, Request
from kaito.runtime.testing import World
from kaito.runtime.workqueue import WorkQueue

NAMES = [
    "controller_runtime_reconcile_total",
    "controller_runtime_reconcile_errors_total",
    "controller_runtime_terminal_reconcile_errors_total",
    "controller_runtime_reconcile_panics_total",
    "controller_runtime_reconcile_timeouts_total",
    "controller_runtime_reconcile_time_seconds",
    "controller_runtime_max_concurrent_reconciles",
    "controller_runtime_active_workers",
    "workqueue_depth",
    "workqueue_adds_total",
    "workqueue_queue_duration_seconds",
    "workqueue_work_duration_seconds",
    "workqueue_unfinished_work_seconds",
    "workqueue_longest_running_processor_seconds",
    "workqueue_retries_total",
    "rest_client_requests_total",
    "rest_client_request_duration_seconds",
    "rest_client_rate_limiter_duration_seconds",
    "rest_client_dns_resolution_duration_seconds",
    "rest_client_request_size_bytes",
    "rest_client_response_size_bytes",
    "rest_client_request_retries_total",
    "leader_election_master_status",
    "leader_election_slowpath_total",
    "controller_runtime_webhook_requests_total",
    "controller_runtime_webhook_latency_seconds",
    "controller_runtime_webhook_requests_in_flight",
    "controller_runtime_webhook_panics_total",
    "controller_runtime_conversion_webhook_panics_total",
    "certwatcher_read_certificate_total",
    "certwatcher_read_certificate_errors_total",
    "kaito_runtime_cache_objects",
    "kaito_runtime_cache_bytes",
    "kaito_runtime_cache_last_event_timestamp_seconds",
    "kaito_runtime_watch_events_total",
    "kaito_runtime_watch_restarts_total",
    "kaito_runtime_relists_total",
    "kaito_runtime_event_to_reconcile_seconds",
    "kaito_runtime_ryw_waits_total",
    "kaito_runtime_ryw_wait_seconds",
    "kaito_runtime_queue_oldest_ready_seconds",
    "kaito_runtime_clock_skew_seconds",
    "kaito_runtime_loop_lag_seconds",
    "kaito_runtime_lease_remaining_seconds",
    "kaito_runtime_last_success_timestamp_seconds",
]


def exported(metrics: Metrics) -> set[str]:
    text = metrics.exposition().decode()
    return {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}


async def test_every_promised_name_is_exported(world: World) -> None:
    async with world.manager() as manager:
        assert set(NAMES) - exported(manager.metrics) == set()


async def test_a_queue_at_work_is_shown(world: World) -> None:
    async def slow(_: Request[ConfigMap]) -> Again | None:
        await asyncio.sleep(10)
        return Again(600)

    for name in ("a", "b", "c"):
        world.put(ConfigMap(metadata=ObjectMeta(name=name)))
    async with world.manager(Controller(ConfigMap, slow, name="c")) as manager:
        await asyncio.sleep(4)
        labels = {"name": "c", "controller": "c"}
        value = manager.metrics.value
        assert value("workqueue_depth", **labels, priority="-100") == 2
        assert value("workqueue_unfinished_work_seconds", **labels) == 4
        assert value("workqueue_longest_running_processor_seconds", **labels) == 4
        assert value("kaito_runtime_queue_oldest_ready_seconds", controller="c", priority="-100") == 4
        await world.settle()
        assert monotonic() == 30
        assert value("workqueue_retries_total", **labels) == 3
        assert value("workqueue_work_duration_seconds_count", **labels) == 3
        assert value("workqueue_work_duration_seconds_sum", **labels) == 30
        assert value("workqueue_queue_duration_seconds_sum", **labels) == 30
        assert value("kaito_runtime_event_to_reconcile_seconds_count", controller="c") == 3
        assert value("kaito_runtime_watch_events_total", kind="ConfigMap", type="ADDED") >= 0


def scrape(metrics: Metrics) -> dict[str, float]:
    """Every sample of the text that Prometheus would read, as it is written there."""
    lines = (line for line in metrics.exposition().decode().splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def test_our_own_figures_move_with_what_they_measure(world: World) -> None:
    async def slow(_: Request[ConfigMap]) -> Again | None:
        await asyncio.sleep(10)
        return None

    async with world.manager(Controller(ConfigMap, slow), lease="op") as manager:
        await manager.wait_elected()
        remaining = 'kaito_runtime_lease_remaining_seconds{name="op"}'
        first = scrape(manager.metrics)[remaining]
        await asyncio.sleep(1)
        assert scrape(manager.metrics)[remaining] == pytest.approx(first - 1)
        await asyncio.sleep(2)
        assert scrape(manager.metrics)[remaining] > first - 2  # renewed meanwhile

        for name in ("a", "b"):
            world.put(ConfigMap(metadata=ObjectMeta(name=name)))
        await asyncio.sleep(4)
        seen = scrape(manager.metrics)
        assert seen['kaito_runtime_queue_oldest_ready_seconds{controller="configmap",priority="0"}'] == 4
        assert seen['kaito_runtime_last_success_timestamp_seconds{controller="configmap"}'] == 0
        assert seen['kaito_runtime_event_to_reconcile_seconds_count{controller="configmap"}'] == 1
        await world.settle()
        seen = scrape(manager.metrics)
        assert seen['kaito_runtime_event_to_reconcile_seconds_count{controller="configmap"}'] == 2
        assert seen['kaito_runtime_event_to_reconcile_seconds_sum{controller="configmap"}'] == 10  # b waited for a
        assert seen['kaito_runtime_last_success_timestamp_seconds{controller="configmap"}'] == world.now.timestamp()
        assert 'kaito_runtime_queue_oldest_ready_seconds{controller="configmap",priority="0"}' not in seen
        assert seen['kaito_runtime_watch_events_total{kind="ConfigMap",type="ADDED"}'] == 2
        assert seen['kaito_runtime_cache_last_event_timestamp_seconds{kind="ConfigMap"}'] > 0
        assert seen["kaito_runtime_loop_lag_seconds"] == 0


@pytest.mark.virtual_time
async def test_many_priorities_share_one_label() -> None:
    metrics = Metrics()
    queue = WorkQueue[int]("q")
    metrics.watch_queue(queue)
    for number in range(40):
        queue.add(number, priority=number)
    labeled = [line for line in metrics.exposition().decode().splitlines() if line.startswith("workqueue_depth{")]
    assert len(labeled) == 26
    assert metrics.value("workqueue_depth", name="q", controller="q", priority="exceeded_cardinality_limit") == 15
    metrics.forget_queue(queue)
    assert "workqueue_depth{" not in metrics.exposition().decode()


def test_requests_are_counted_by_answer() -> None:
    metrics = Metrics()
    observer = RequestMetrics(metrics)
    observer.finished(method="GET", host="h", code="200", seconds=0.2, sent=0, received=100)
    observer.retried(method="GET", host="h", code="503")
    observer.limited(method="GET", host="h", seconds=1.5)
    observer.resolved("h", 0.25)
    assert metrics.value("rest_client_dns_resolution_duration_seconds_sum", host="h") == 0.25
    assert metrics.value("rest_client_requests_total", code="200", method="GET", host="h") == 1
    assert metrics.value("rest_client_request_duration_seconds_sum", verb="GET", host="h") == 0.2
    assert metrics.value("rest_client_request_retries_total", code="503", verb="GET", host="h") == 1
    assert metrics.value("rest_client_rate_limiter_duration_seconds_sum", verb="GET", host="h") == 1.5


def test_each_answer_method_and_host_counts_for_itself() -> None:
    metrics = Metrics()
    observer = RequestMetrics(metrics)
    for method, host, code in [
        ("GET", "a", "200"),
        ("GET", "a", "404"),
        ("PATCH", "a", "200"),
        ("GET", "b", "200"),
    ] * 2:
        observer.finished(method=method, host=host, code=code, seconds=1.0, sent=10, received=100)
    requests, size = "rest_client_requests_total", "rest_client_response_size_bytes_sum"
    assert metrics.value(requests, code="200", method="GET", host="a") == 2
    assert metrics.value(requests, code="404", method="GET", host="a") == 2
    assert metrics.value(requests, code="200", method="PATCH", host="a") == 2
    assert metrics.value(requests, code="200", method="GET", host="b") == 2
    assert metrics.value(size, verb="GET", host="a") == 400
    assert metrics.value(size, verb="PATCH", host="a") == 200
    assert metrics.value(size, verb="GET", host="b") == 200
    assert metrics.value("rest_client_request_size_bytes_sum", verb="GET", host="a") == 40
    assert metrics.value("rest_client_request_duration_seconds_count", verb="GET", host="a") == 4


def test_two_managers_in_one_process_do_not_collide() -> None:
    first, second = Metrics(process=True), Metrics(process=True)
    first.webhook_panics.inc()
    assert second.value("controller_runtime_webhook_panics_total") == 0


async def test_no_series_is_doubled_by_its_time_of_creation(world: World) -> None:
    controller = Controller(ConfigMap, reconcile_nothing)
    async with world.manager(controller) as manager:
        world.put(ConfigMap(metadata=ObjectMeta(name="a")))
        await world.settle()
        text = manager.metrics.exposition().decode()
    assert 'controller_runtime_reconcile_total{controller="configmap",result="success"} 1.0' in text
    assert "_created" not in text


async def reconcile_nothing(request: Request[ConfigMap]) -> None: ...
