"""Collectors that read the counters of work queues and informers at a scrape."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from kaito.runtime.cache.stats import WAIT_BUCKETS, KindStats
from kaito.runtime.workqueue.queue import WorkQueue
from kaito.runtime.workqueue.stats import Buckets, cumulative

PREFIX = "kaito_runtime"
"""Prefix of metrics that controller-runtime does not have."""

PRIORITIES_LABELED = 25
"""Maximum values of the label `priority`; the others become `exceeded_cardinality_limit`, as in controller-runtime."""


@final
class QueueCollector(Collector):
    """Collects the metrics of the queues."""

    def __init__(self, queues: dict[str, WorkQueue[Any]]) -> None:
        self._queues = queues
        self._priorities: set[int] = set()

    def describe(self) -> Iterator[Metric]:
        """Nothing at registration: the queues' clock needs a running loop."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """One family per metric, with a sample for each queue."""
        yield self._depth()
        yield self._oldest()
        yield self._counter("workqueue_adds", "Keys that became ready.", lambda queue: queue.stats.adds)
        yield self._counter("workqueue_retries", "Adds with a delay.", lambda queue: queue.stats.retries)
        yield self._histogram(
            "workqueue_queue_duration_seconds",
            "Time from ready to the start of the reconcile.",
            lambda queue: queue.stats.queue_duration,
        )
        yield self._histogram(
            "workqueue_work_duration_seconds",
            "Duration of reconciles, by the queue.",
            lambda queue: queue.stats.work_duration,
        )
        yield self._gauge(
            "workqueue_unfinished_work_seconds",
            "Sum of the durations of running reconciles.",
            lambda queue: sum(queue.processing().values()),
        )
        yield self._gauge(
            "workqueue_longest_running_processor_seconds",
            "Duration of the longest running reconcile.",
            lambda queue: max(queue.processing().values(), default=0.0),
        )

    def _label(self, priority: int) -> str:
        if priority not in self._priorities and len(self._priorities) >= PRIORITIES_LABELED:
            return "exceeded_cardinality_limit"
        self._priorities.add(priority)
        return str(priority)

    def _depth(self) -> Metric:
        family = GaugeMetricFamily(
            "workqueue_depth", "Number of ready keys.", labels=["name", "controller", "priority"]
        )
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
            "Seconds for which the oldest ready key has been ready.",
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
class CacheCollector(Collector):
    """Collects the metrics of the informers."""

    def __init__(self, sources: list[tuple[str, Callable[[], Iterable[KindStats]]]]) -> None:
        self._sources = sources

    def describe(self) -> Iterator[Metric]:
        """Nothing at registration: there are no caches yet."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """One family per metric, with a sample for each kind."""
        stats = [(cluster, each) for cluster, source in self._sources for each in source()]
        yield _gauge_by_kind("cache_objects", "Objects in the cache.", stats, lambda kind: kind.objects)
        yield _gauge_by_kind("cache_bytes", "Bytes of JSON in the cache.", stats, lambda kind: kind.size)
        yield _gauge_by_kind(
            "cache_last_event_timestamp_seconds",
            "Time of the last watch event.",
            stats,
            lambda kind: kind.last_event,
        )
        yield _counter_by_kind("watch_events", "Watch events received.", "type", stats, lambda kind: kind.events)
        yield _counter_by_kind("watch_restarts", "Watches that ended.", "reason", stats, lambda kind: kind.restarts)
        yield _counter_by_kind("relists", "Full lists of the kind.", "reason", stats, lambda kind: kind.relists)
        yield _counter_by_kind(
            "handler_errors", "Events whose handler failed.", "handler", stats, lambda kind: kind.handler_errors
        )
        yield _counter_by_kind(
            "ryw_waits", "Reads that waited for a write of this process.", "outcome", stats, lambda kind: kind.waits
        )
        waits = HistogramMetricFamily(
            f"{PREFIX}_ryw_wait_seconds", "Time that reads waited for a write of this process.", labels=["kind"]
        )
        for cluster, kind in stats:
            with _with_cluster_label(waits, cluster):
                waits.add_metric([kind.kind], cumulative(WAIT_BUCKETS, kind.wait_counts), kind.wait_seconds)
        yield waits


Stats = Sequence[tuple[str, KindStats]]
"""Counters by cluster and kind."""


@contextmanager
def _with_cluster_label(family: Metric, cluster: str) -> Generator[None]:
    """Adds the label `cluster` to the samples added within, except for the manager's own cluster."""
    before = len(family.samples)
    yield
    if cluster:
        family.samples[before:] = [
            sample._replace(labels={**sample.labels, "cluster": cluster}) for sample in family.samples[before:]
        ]


def _gauge_by_kind(name: str, text: str, stats: Stats, read: Callable[[KindStats], float]) -> Metric:
    family = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=["kind"])
    for cluster, kind in stats:
        with _with_cluster_label(family, cluster):
            family.add_metric([kind.kind], read(kind))
    return family


def _counter_by_kind(
    name: str, text: str, label: str, stats: Stats, read: Callable[[KindStats], Mapping[str, int]]
) -> Metric:
    family = CounterMetricFamily(f"{PREFIX}_{name}", text, labels=["kind", label])
    for cluster, kind in stats:
        with _with_cluster_label(family, cluster):
            for value, count in read(kind).items():
                family.add_metric([kind.kind, value], count)
    return family
