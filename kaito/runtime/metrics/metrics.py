"""Every metric of the framework, under controller-runtime's names where it has one, and `kaito_runtime_*` otherwise.

One `Metrics` per manager, with its own registry: two managers in one process (tests, `kaito up`) do not collide.
Parts of the framework receive the object and use its attributes; queues count for themselves and are read at a scrape.
Nothing is ever labeled by object name.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import (
    Metric,
)

from kaito.runtime.cache.stats import KindStats
from kaito.runtime.metrics.collectors import PREFIX, CacheCollector, QueueCollector
from kaito.runtime.metrics.histogram import Histogram
from kaito.runtime.workqueue.queue import WorkQueue
from kaito.runtime.workqueue.stats import QUEUE_BOUNDS_SECONDS

RECONCILE_BOUNDS_SECONDS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    *(1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5, 6, 7, 8, 9, 10, 15, 20, 25, 30, 40, 50, 60),
)
"""Buckets of `controller_runtime_reconcile_time_seconds`, controller-runtime's."""

REQUEST_BOUNDS_SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
"""Buckets of the `rest_client_*` latencies, client-go's."""

SIZE_BOUNDS_BYTES = (64, 256, 512, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216)
"""Buckets of the `rest_client_*` sizes, client-go's."""

LATENCY_BOUNDS_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Buckets of our own latencies."""

RESULTS = ("success", "error", "requeue", "requeue_after")


@final
class Metrics:
    """The registry and every metric in it.

    Args:
        process: also export the process, platform and garbage collection figures of this interpreter.
    """

    def __init__(self, *, process: bool = False) -> None:
        self.registry: CollectorRegistry = CollectorRegistry()
        if process:
            ProcessCollector(registry=self.registry)
            PlatformCollector(registry=self.registry)
            GCCollector(registry=self.registry)
        self._queues: dict[str, WorkQueue[Any]] = {}
        self._cache_stats: list[tuple[str, Callable[[], Iterable[KindStats]]]] = []
        self.registry.register(QueueCollector(self._queues))
        self.registry.register(CacheCollector(self._cache_stats))
        self._reconciles()
        self._requests()
        self._election()
        self._webhooks()
        self._process()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, bounds: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, text, bounds, labels, self.registry)

    def _reconciles(self) -> None:
        cr, controller = "controller_runtime", "controller"
        self.reconciles: Counter = self._counter(
            f"{cr}_reconcile_total", "Reconciles by outcome.", controller, "result"
        )
        self.reconcile_errors: Counter = self._counter(f"{cr}_reconcile_errors_total", "Failed reconciles.", controller)
        self.terminal_errors: Counter = self._counter(
            f"{cr}_terminal_reconcile_errors_total", "Reconciles that failed and are not retried.", controller
        )
        self.reconcile_panics: Counter = self._counter(
            f"{cr}_reconcile_panics_total",
            "Reconciles that failed with a programming error (TypeError, KeyError, AssertionError and the like).",
            controller,
        )
        self.reconcile_timeouts: Counter = self._counter(
            f"{cr}_reconcile_timeouts_total", "Reconciles cancelled by the controller's deadline.", controller
        )
        self.contested: Counter = self._counter(
            f"{PREFIX}_contested_applies_total",
            "Applied fields that another writer had changed and that were written again within ten minutes.",
            controller,
        )
        self.reconcile_seconds: Histogram = self._histogram(
            f"{cr}_reconcile_time_seconds", "Length of a reconcile.", RECONCILE_BOUNDS_SECONDS, controller
        )
        self.workers: Gauge = self._gauge(f"{cr}_max_concurrent_reconciles", "Workers of the controller.", controller)
        self.active_workers: Gauge = self._gauge(f"{cr}_active_workers", "Workers inside a reconcile.", controller)
        self.event_to_reconcile: Histogram = self._histogram(
            f"{PREFIX}_event_to_reconcile_seconds",
            "From the receipt of an event to the start of the reconcile it caused.",
            LATENCY_BOUNDS_SECONDS,
            controller,
        )
        self.last_success: Gauge = self._gauge(
            f"{PREFIX}_last_success_timestamp_seconds", "When a reconcile last succeeded.", controller
        )

    def start_controller(self, controller: str, workers: int) -> None:
        """Create the controller's series at 0, so that rates work from the first failure on."""
        for result in RESULTS:
            self.reconciles.labels(controller, result)
        for counter in (
            self.reconcile_errors,
            self.terminal_errors,
            self.reconcile_panics,
            self.reconcile_timeouts,
            self.contested,
        ):
            counter.labels(controller)
        self.reconcile_seconds.labels(controller)
        self.workers.labels(controller).set(workers)
        self.active_workers.labels(controller).set(0)

    def _requests(self) -> None:
        client = "rest_client"
        self.requests: Counter = self._counter(
            f"{client}_requests_total", "Requests by answer.", "code", "method", "host"
        )
        self.request_seconds: Histogram = self._histogram(
            f"{client}_request_duration_seconds", "Time to the answer.", REQUEST_BOUNDS_SECONDS, "verb", "host"
        )
        self.throttled_seconds: Histogram = self._histogram(
            f"{client}_rate_limiter_duration_seconds",
            "Time a request waited for the client's own limit.",
            REQUEST_BOUNDS_SECONDS,
            "verb",
            "host",
        )
        self.resolution_seconds: Histogram = self._histogram(
            f"{client}_dns_resolution_duration_seconds",
            "Time to look up the API server's name.",
            REQUEST_BOUNDS_SECONDS,
            "host",
        )
        self.request_bytes: Histogram = self._histogram(
            f"{client}_request_size_bytes", "Size of request bodies.", SIZE_BOUNDS_BYTES, "verb", "host"
        )
        self.response_bytes: Histogram = self._histogram(
            f"{client}_response_size_bytes", "Size of response bodies.", SIZE_BOUNDS_BYTES, "verb", "host"
        )
        self.request_retries: Counter = self._counter(
            f"{client}_request_retries_total", "Requests sent again.", "code", "verb", "host"
        )
        self.events_dropped: Counter = self._counter(f"{PREFIX}_events_dropped_total", "Events not recorded.", "reason")

    def _election(self) -> None:
        self.leader: Gauge = self._gauge("leader_election_master_status", "1 while this process leads.", "name")
        self.election_slow_path: Counter = self._counter(
            "leader_election_slowpath_total", "Renewals that had to read the lease first.", "name"
        )
        self.lease_remaining: Gauge = self._gauge(
            f"{PREFIX}_lease_remaining_seconds", "Seconds this process may still write as leader.", "name"
        )

    def _webhooks(self) -> None:
        cr, webhook = "controller_runtime_webhook", "webhook"
        self.webhook_requests: Counter = self._counter(
            f"{cr}_requests_total", "Webhook calls by answer.", webhook, "code"
        )
        self.webhook_seconds: Histogram = self._histogram(
            f"{cr}_latency_seconds", "Time to the answer of a webhook call.", QUEUE_BOUNDS_SECONDS, webhook
        )
        self.webhook_in_flight: Gauge = self._gauge(
            f"{cr}_requests_in_flight", "Webhook calls being answered.", webhook
        )
        self.webhook_panics: Counter = self._counter(f"{cr}_panics_total", "Webhook handlers that raised.")
        self.conversion_panics: Counter = self._counter(
            "controller_runtime_conversion_webhook_panics_total", "Conversion functions that raised."
        )
        self.certificate_reads: Counter = self._counter(
            "certwatcher_read_certificate_total", "Times the serving certificate was read."
        )
        self.certificate_errors: Counter = self._counter(
            "certwatcher_read_certificate_errors_total", "Times the serving certificate could not be used."
        )

    def _process(self) -> None:
        self.loop_lag: Gauge = self._gauge(
            f"{PREFIX}_loop_lag_seconds",
            "How late the event loop ran a timer, at worst in the last half to whole minute.",
        )

    def watch_queue(self, queue: WorkQueue[Any]) -> None:
        """Export the queue's figures under its name."""
        self._queues[queue.name] = queue

    def forget_queue(self, queue: WorkQueue[Any]) -> None:
        """Stop exporting the queue."""
        self._queues.pop(queue.name, None)

    def watch_cache(self, stats: Callable[[], Iterable[KindStats]], *, cluster: str = "") -> None:
        """Export the counters of a cache's informers; those of a further cluster with its name in `cluster`."""
        self._cache_stats.append((cluster, stats))

    def value(self, metric: str, /, **labels: str) -> float:
        """The current value of one series, by its exposition name; 0.0 when it does not exist yet. For tests."""
        return self.registry.get_sample_value(metric, labels) or 0.0

    def exposition(self) -> bytes:
        """The text format of Prometheus, without the time of creation of each series."""
        return generate_latest(_WithoutCreated(self.registry))


@final
class _WithoutCreated(CollectorRegistry):
    """A registry without `_created` samples, which double the counters and which Prometheus does not use."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """The families of the registry."""
        for family in self._registry.collect():
            if family.type in {"counter", "histogram", "summary"}:
                family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family
