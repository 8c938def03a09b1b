"""`Histogram`: a histogram for hot paths, with plain counts that are formatted at a scrape.

Every reconcile and every request makes several observations. prometheus_client's histogram takes two locks and iterates
over the buckets for each; this one needs a bisection.
"""

from collections.abc import Iterator
from typing import final

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from kaito.runtime.workqueue.stats import Buckets


@final
class Histogram(Collector):
    """A histogram with labels and the interface of prometheus_client: `histogram.labels("value").observe(0.5)`.

    Observations take no lock, so all must be made in one thread.
    """

    def __init__(
        self, name: str, text: str, bounds: tuple[float, ...], labels: tuple[str, ...], registry: CollectorRegistry
    ) -> None:
        self._name = name
        self._text = text
        self._bounds = bounds
        self._labels = labels
        self._series: dict[tuple[str, ...], Buckets] = {}
        registry.register(self)

    def labels(self, *values: str) -> Buckets:
        """The series of these label values, in the order of the declaration; created on first use."""
        series = self._series.get(values)
        if series is None:
            if len(values) != len(self._labels):
                message = f"{self._name} has the labels {', '.join(self._labels)}: {len(values)} values given"
                raise ValueError(message)
            series = self._series[values] = Buckets(self._bounds)
        return series

    def remove_last(self, value: str) -> None:
        """Removes the series whose last label has this value."""
        for values in [values for values in self._series if values[-1] == value]:
            del self._series[values]

    def describe(self) -> Iterator[Metric]:
        """The name only, which reserves it in the registry."""
        yield HistogramMetricFamily(self._name, self._text, labels=self._labels)

    def collect(self) -> Iterator[Metric]:
        """One family with all series."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for values, series in self._series.items():
            family.add_metric(values, series.cumulative(), series.total)
        yield family
