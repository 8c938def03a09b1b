"""Collectors that read the figures of work queues and informers when Prometheus scrapes."""

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
"""Prefix of the metrics that controller-runtime does not have."""

PRIORITIES_LABELED = 25
"""Distinct values of the priority label; further ones share `exceeded_cardinality_limit`, as in controller-runtime."""


@final
class QueueCollector(Collector):
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
            lambda queue: sum(queue.processing().values()),
        )
        yield self._gauge(
            "workqueue_longest_running_processor_seconds",
            "Age of the key longest in hand.",
            lambda queue: max(queue.processing().values(), default=0.0),
        )

    def _label(self, priority: int) -> str:
        if priority not in self._priorities and len(self._priorities) >= PRIORITIES_LABELED:
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
class CacheCollector(Collector):
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
