"""Every metric of the framework, under controller-runtime's names where it has one, and `kaito_runtime_*` otherwise.

One `Metrics` per manager, with its own registry: two managers in one process (tests, `kaito up`) do not collide.
Parts of the framework receive the object and use its attributes; queues count for themselves and are read at a scrape.
Nothing is ever labelled by object name.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from kaito.runtime.cache.stats import WAIT_BUCKETS, KindStats
from kaito.runtime.histogram import Histogram
from kaito.runtime.workqueue.queue import WorkQueue
from kaito.runtime.workqueue.stats import QUEUE_BOUNDS_SECONDS, Buckets, cumulative

PREFIX = "kaito_runtime"

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

PRIORITIES_LABELLED = 25
"""Distinct values of the priority label; further ones share `exceeded_cardinality_limit`, as in controller-runtime."""

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
        self.registry.register(_QueueCollector(self._queues))
        self.registry.register(_CacheCollector(self._cache_stats))
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


@final
class _QueueCollector(Collector):
    """Reads the queues at a scrape."""

    def __init__(self, queues: dict[str, WorkQueue[Any]]) -> None:
        self._queues = queues
        self._priorities: set[int] = set()

    def describe(self) -> Iterator[Metric]:
        """Nothing at registration: collecting needs a running loop for the queues' clock."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """One family per metric, one sample per queue."""
        yield self._depth()
        yield self._oldest()
        yield self._counter("workqueue_adds", "Keys that became ready.", lambda queue: queue.stats.adds)
        yield self._counter("workqueue_retries", "Adds with a delay.", lambda queue: queue.stats.retries)
        yield self._histogram(
            "workqueue_queue_duration_seconds",
            "From ready to hand-out.",
            lambda queue: queue.stats.queue_duration,
        )
        yield self._histogram(
            "workqueue_work_duration_seconds",
            "From hand-out to done.",
            lambda queue: queue.stats.work_duration,
        )
        yield self._gauge(
            "workqueue_unfinished_work_seconds",
            "Sum of the ages of keys in hand.",
            lambda queue: sum(queue.held().values()),
        )
        yield self._gauge(
            "workqueue_longest_running_processor_seconds",
            "Age of the key longest in hand.",
            lambda queue: max(queue.held().values(), default=0.0),
        )

    def _label(self, priority: int) -> str:
        if priority not in self._priorities and len(self._priorities) >= PRIORITIES_LABELLED:
            return "exceeded_cardinality_limit"
        self._priorities.add(priority)
        return str(priority)

    def _depth(self) -> Metric:
        family = GaugeMetricFamily("workqueue_depth", "Ready keys.", labels=["name", "controller", "priority"])
        for name, queue in self._queues.items():
            depths: dict[str, int] = {}
            for priority, depth in ({0: 0} | queue.depth()).items():
                label = self._label(priority)
                depths[label] = depths.get(label, 0) + depth
            for label, depth in depths.items():
                family.add_metric([name, name, label], depth)
        return family

    def _oldest(self) -> Metric:
        family = GaugeMetricFamily(
            f"{PREFIX}_queue_oldest_ready_seconds",
            "Age of the first ready key.",
            labels=["controller", "priority"],
        )
        for name, queue in self._queues.items():
            ages: dict[str, float] = {}
            for priority, age in queue.oldest_ready().items():
                label = self._label(priority)
                ages[label] = max(ages.get(label, 0.0), age)
            for label, age in ages.items():
                family.add_metric([name, label], age)
        return family

    def _counter(self, metric: str, text: str, read: Callable[[WorkQueue[Any]], float]) -> Metric:
        family = CounterMetricFamily(metric, text, labels=["name", "controller"])
        for name, queue in self._queues.items():
            family.add_metric([name, name], read(queue))
        return family

    def _gauge(self, metric: str, text: str, read: Callable[[WorkQueue[Any]], float]) -> Metric:
        family = GaugeMetricFamily(metric, text, labels=["name", "controller"])
        for name, queue in self._queues.items():
            family.add_metric([name, name], read(queue))
        return family

    def _histogram(self, metric: str, text: str, read: Callable[[WorkQueue[Any]], Buckets]) -> Metric:
        family = HistogramMetricFamily(metric, text, labels=["name", "controller"])
        for name, queue in self._queues.items():
            buckets = read(queue)
            family.add_metric([name, name], buckets.cumulative(), buckets.total)
        return family


@final
class _CacheCollector(Collector):
    """Reads the informers' counters at a scrape."""

    def __init__(self, sources: list[tuple[str, Callable[[], Iterable[KindStats]]]]) -> None:
        self._sources = sources

    def describe(self) -> Iterator[Metric]:
        """Nothing at registration."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """One family per metric, one sample per kind."""
        stats = [(cluster, each) for cluster, source in self._sources for each in source()]
        yield _kinds("cache_objects", "Objects held by the informer.", stats, lambda kind: kind.objects)
        yield _kinds("cache_bytes", "Bytes of JSON held by the informer.", stats, lambda kind: kind.size)
        yield _kinds(
            "cache_last_event_timestamp_seconds",
            "When the informer last heard of a change.",
            stats,
            lambda kind: kind.last_event,
        )
        yield _tallies("watch_events", "Watch events received.", "type", stats, lambda kind: kind.events)
        yield _tallies("watch_restarts", "Watches that ended.", "reason", stats, lambda kind: kind.restarts)
        yield _tallies("relists", "Times the store was filled.", "reason", stats, lambda kind: kind.relists)
        yield _tallies(
            "handler_errors", "Events a handler failed on.", "handler", stats, lambda kind: kind.handler_errors
        )
        yield _tallies("ryw_waits", "Reads that waited for own writes.", "outcome", stats, lambda kind: kind.waits)
        waits = HistogramMetricFamily(
            f"{PREFIX}_ryw_wait_seconds", "How long reads waited for own writes.", labels=["kind"]
        )
        for cluster, kind in stats:
            with _of_cluster(waits, cluster):
                waits.add_metric([kind.kind], cumulative(WAIT_BUCKETS, kind.wait_counts), kind.wait_seconds)
        yield waits


Stats = Sequence[tuple[str, KindStats]]
"""Counters by cluster and kind."""


@contextmanager
def _of_cluster(family: Metric, cluster: str) -> Generator[None]:
    """Samples added inside get the label `cluster`, unless it is the manager's own, which goes without."""
    before = len(family.samples)
    yield
    if cluster:
        family.samples[before:] = [
            sample._replace(labels={**sample.labels, "cluster": cluster}) for sample in family.samples[before:]
        ]


def _kinds(name: str, text: str, stats: Stats, read: Callable[[KindStats], float]) -> Metric:
    family = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=["kind"])
    for cluster, kind in stats:
        with _of_cluster(family, cluster):
            family.add_metric([kind.kind], read(kind))
    return family


def _tallies(name: str, text: str, label: str, stats: Stats, read: Callable[[KindStats], Mapping[str, int]]) -> Metric:
    family = CounterMetricFamily(f"{PREFIX}_{name}", text, labels=["kind", label])
    for cluster, kind in stats:
        with _of_cluster(family, cluster):
            for value, count in read(kind).items():
                family.add_metric([kind.kind, value], count)
    return family


@final
class RequestMetrics:
    """Counts the client's requests; a `RequestObserver`."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        # Series looked up once: every reconcile makes requests, and `labels()` costs more than counting does. The
        # registry keeps the same series for as long, so these hold no more than it does.
        self._answers: dict[tuple[str, str, str], Counter] = {}
        self._figures: dict[tuple[str, str], tuple[Buckets, Buckets, Buckets]] = {}

    def finished(self, *, method: str, host: str, code: str, seconds: float, sent: int, received: int) -> None:
        """An attempt ended."""
        answers = self._answers.get((code, method, host))
        if answers is None:
            answers = self._answers[code, method, host] = self._metrics.requests.labels(code, method, host)
        figures = self._figures.get((method, host))
        if figures is None:
            figures = self._figures[method, host] = self._figures_of(method, host)
        latency, request_size, response_size = figures
        answers.inc()
        latency.observe(seconds)
        request_size.observe(sent)
        response_size.observe(received)

    def _figures_of(self, method: str, host: str) -> tuple[Buckets, Buckets, Buckets]:
        metrics = self._metrics
        return (
            metrics.request_seconds.labels(method, host),
            metrics.request_bytes.labels(method, host),
            metrics.response_bytes.labels(method, host),
        )

    def retried(self, *, method: str, host: str, code: str) -> None:
        """An attempt will be repeated."""
        self._metrics.request_retries.labels(code, method, host).inc()

    def limited(self, *, method: str, host: str, seconds: float) -> None:
        """The client's own limit held a request."""
        self._metrics.throttled_seconds.labels(method, host).observe(seconds)

    def resolved(self, host: str, seconds: float) -> None:
        """The API server's name was looked up."""
        self._metrics.resolution_seconds.labels(host).observe(seconds)
