"""All metrics of the framework, with controller-runtime's names if it has the metric, else `kaito_runtime_*`.

Each manager has its own `Metrics` with its own registry, so that several managers can run in one process (tests,
`kaito up`). The components of the framework use the attributes of the object; queues and caches count in plain numbers
that are read at a scrape. No metric has the name of an object as a label, because the number of series must not grow
with the cluster.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
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
"""controller-runtime's buckets of `controller_runtime_reconcile_time_seconds`."""

REQUEST_BOUNDS_SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
"""client-go's buckets of the `rest_client_*` latencies."""

SIZE_BOUNDS_BYTES = (64, 256, 512, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216)
"""client-go's buckets of the `rest_client_*` sizes."""

LATENCY_BOUNDS_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Buckets of the `kaito_runtime_*` latencies."""

RESULTS = ("success", "error", "requeue", "requeue_after")


@final
class Metrics:
    """The registry and the metrics in it.

    Args:
        process: also export the metrics of the process, the platform and the garbage collector.
    """

    def __init__(self, *, process: bool = False) -> None:
        self.registry: CollectorRegistry = CollectorRegistry()
        if process:
            ProcessCollector(registry=self.registry)
            PlatformCollector(registry=self.registry)
            GCCollector(registry=self.registry)
        self._queues: dict[str, WorkQueue[Any]] = {}
        self._cache_stats: list[tuple[str, Callable[[], Iterable[KindStats]]]] = []
        self._hosts: dict[str, int] = {}
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
        self.reconciles: Counter = self._counter(f"{cr}_reconcile_total", "Reconciles by result.", controller, "result")
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
        self.failing_keys: Gauge = self._gauge(
            f"{PREFIX}_failing_keys", "Keys whose last reconcile failed.", controller
        )
        self.given_up_keys: Gauge = self._gauge(
            f"{PREFIX}_given_up_keys", "Keys whose last reconcile failed and that are not retried.", controller
        )
        self.report_errors: Counter = self._counter(
            f"{PREFIX}_failure_report_errors_total", "Functions of reports_failures() that failed.", controller
        )
        self.polls: Counter = self._counter(
            f"{PREFIX}_polls_total", "Polls of values outside of the cluster.", controller, "polling", "result"
        )
        self.poll_seconds: Histogram = self._histogram(
            f"{PREFIX}_poll_seconds", "Duration of polls.", REQUEST_BOUNDS_SECONDS, controller, "polling"
        )
        self.inbound_calls: Counter = self._counter(
            f"{PREFIX}_inbound_calls_total", "HTTP calls of inbound sources by status code.", controller, "path", "code"
        )
        self.reconcile_seconds: Histogram = self._histogram(
            f"{cr}_reconcile_time_seconds", "Duration of reconciles.", RECONCILE_BOUNDS_SECONDS, controller
        )
        self.workers: Gauge = self._gauge(
            f"{cr}_max_concurrent_reconciles", "Maximum number of concurrent reconciles of the controller.", controller
        )
        self.active_workers: Gauge = self._gauge(
            f"{cr}_active_workers", "Workers that are running a reconcile.", controller
        )
        self.event_to_reconcile: Histogram = self._histogram(
            f"{PREFIX}_event_to_reconcile_seconds",
            "Time from the receipt of an event to the start of its reconcile.",
            LATENCY_BOUNDS_SECONDS,
            controller,
        )
        self.last_success: Gauge = self._gauge(
            f"{PREFIX}_last_success_timestamp_seconds", "Time of the last successful reconcile.", controller
        )

    def start_controller(self, controller: str, workers: int) -> None:
        """Creates the controller's series with 0, so that `rate()` counts the first failure."""
        for result in RESULTS:
            self.reconciles.labels(controller, result)
        for counter in (
            self.reconcile_errors,
            self.terminal_errors,
            self.reconcile_panics,
            self.reconcile_timeouts,
            self.contested,
            self.report_errors,
        ):
            counter.labels(controller)
        self.reconcile_seconds.labels(controller)
        self.workers.labels(controller).set(workers)
        self.active_workers.labels(controller).set(0)
        self.failing_keys.labels(controller).set(0)
        self.given_up_keys.labels(controller).set(0)

    def _requests(self) -> None:
        client = "rest_client"
        self.requests: Counter = self._counter(
            f"{client}_requests_total", "Requests by status code.", "code", "method", "host"
        )
        self.request_seconds: Histogram = self._histogram(
            f"{client}_request_duration_seconds", "Duration of requests.", REQUEST_BOUNDS_SECONDS, "verb", "host"
        )
        self.throttled_seconds: Histogram = self._histogram(
            f"{client}_rate_limiter_duration_seconds",
            "Time that requests waited for the client-side rate limiter.",
            REQUEST_BOUNDS_SECONDS,
            "verb",
            "host",
        )
        self.resolution_seconds: Histogram = self._histogram(
            f"{client}_dns_resolution_duration_seconds",
            "Duration of DNS lookups of the API server.",
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
            f"{client}_request_retries_total", "Retried requests.", "code", "verb", "host"
        )
        self.request_series: set[tuple[str, str, str]] = set()
        """The label values of `requests`, for `forget_host`."""
        self.retry_series: set[tuple[str, str, str]] = set()
        self.cluster_up: Gauge = self._gauge(
            f"{PREFIX}_cluster_up", "1 while a cluster of a ClusterSet is synced and reachable, else 0.", "cluster"
        )
        self.events_dropped: Counter = self._counter(
            f"{PREFIX}_events_dropped_total", "Kubernetes Events that were dropped.", "reason"
        )

    def _election(self) -> None:
        self.shards_held: Gauge = self._gauge(
            f"{PREFIX}_shards_held", "Shards whose keys this process reconciles.", "name"
        )
        self.leader: Gauge = self._gauge(
            "leader_election_master_status", "1 while this process is the leader, else 0.", "name"
        )
        self.election_slow_path: Counter = self._counter(
            "leader_election_slowpath_total", "Renewals of the lease that had to read it first.", "name"
        )
        self.lease_remaining: Gauge = self._gauge(
            f"{PREFIX}_lease_remaining_seconds", "Remaining seconds in which writes pass the fence.", "name"
        )

    def _webhooks(self) -> None:
        cr, webhook = "controller_runtime_webhook", "webhook"
        self.webhook_requests: Counter = self._counter(
            f"{cr}_requests_total", "Webhook calls by status code.", webhook, "code"
        )
        self.webhook_seconds: Histogram = self._histogram(
            f"{cr}_latency_seconds", "Duration of webhook calls.", QUEUE_BOUNDS_SECONDS, webhook
        )
        self.webhook_in_flight: Gauge = self._gauge(f"{cr}_requests_in_flight", "Webhook calls in progress.", webhook)
        self.webhook_panics: Counter = self._counter(f"{cr}_panics_total", "Webhook handlers that raised an exception.")
        self.conversion_panics: Counter = self._counter(
            "controller_runtime_conversion_webhook_panics_total", "Conversion functions that raised an exception."
        )
        self.certificate_reads: Counter = self._counter(
            "certwatcher_read_certificate_total", "Reads of the serving certificate."
        )
        self.certificate_errors: Counter = self._counter(
            "certwatcher_read_certificate_errors_total", "Reads of a serving certificate that was not valid."
        )

    def _process(self) -> None:
        self.loop_lag: Gauge = self._gauge(
            f"{PREFIX}_loop_lag_seconds",
            "Worst delay of the event loop in the last 30 to 60 seconds.",
        )
        self.clock_skew: Gauge = self._gauge(
            f"{PREFIX}_clock_skew_seconds",
            "Time by which the local clock is ahead of the API server's; negative if it is behind.",
        )

    def watch_queue(self, queue: WorkQueue[Any]) -> None:
        """Exports the metrics of a queue."""
        self._queues[queue.name] = queue

    def forget_queue(self, queue: WorkQueue[Any]) -> None:
        """Stops exporting a queue."""
        self._queues.pop(queue.name, None)

    def watch_cache(self, stats: Callable[[], Iterable[KindStats]], *, cluster: str = "") -> None:
        """Exports the metrics of a cache's informers; `cluster` is empty for the manager's own cluster."""
        self._cache_stats.append((cluster, stats))

    def forget_cache(self, cluster: str) -> None:
        """Stops exporting the caches of a cluster that was removed, and whether it is reachable."""
        self._cache_stats[:] = [each for each in self._cache_stats if each[0] != cluster]
        with suppress(KeyError):
            self.cluster_up.remove(cluster)

    def watch_host(self, host: str) -> None:
        """Counts a cluster at this host; see `forget_host`."""
        self._hosts[host] = self._hosts.get(host, 0) + 1

    def forget_host(self, host: str) -> None:
        """Drops the series of requests to a host, unless another cluster is at the same host."""
        self._hosts[host] = self._hosts.get(host, 1) - 1
        if self._hosts[host] > 0:
            return
        del self._hosts[host]
        for counter, series in ((self.requests, self.request_series), (self.request_retries, self.retry_series)):
            for labels in [labels for labels in series if labels[-1] == host]:
                series.discard(labels)
                with suppress(KeyError):
                    counter.remove(*labels)
        for histogram in (self.request_seconds, self.throttled_seconds, self.request_bytes, self.response_bytes):
            histogram.remove_last(host)

    def value(self, metric: str, /, **labels: str) -> float:
        """The value of one series, by its name in the exposition; 0.0 if it does not exist. For tests."""
        return self.registry.get_sample_value(metric, labels) or 0.0

    def exposition(self) -> bytes:
        """The metrics in Prometheus' text format, without `_created` samples."""
        return generate_latest(_WithoutCreated(self.registry))


@final
class _WithoutCreated(CollectorRegistry):
    """A registry without `_created` samples, which double the number of series and are not used by Prometheus."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """The metric families of the registry."""
        for family in self._registry.collect():
            if family.type in {"counter", "histogram", "summary"}:
                family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family
