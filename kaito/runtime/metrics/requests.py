"""`RequestMetrics`: the metrics of the client's requests."""

from collections.abc import Callable
from typing import final

from prometheus_client import Counter

from kaito.runtime.metrics.metrics import Metrics
from kaito.runtime.workqueue.stats import Buckets


@final
class RequestMetrics:
    """Counts the client's requests; a `RequestObserver`.

    Args:
        metrics: the metrics.
        on_date: called with the header `Date` of responses and the duration of their requests in seconds.
    """

    def __init__(self, metrics: Metrics, on_date: Callable[[str, float], None] | None = None) -> None:
        self._metrics = metrics
        self._on_date = on_date
        self._closed = False
        # `labels()` costs more than counting, so each series is looked up once. The registry keeps the series as long
        # as these dictionaries do.
        self._counters: dict[tuple[str, str, str], Counter] = {}
        self._histograms: dict[tuple[str, str], tuple[Buckets, Buckets, Buckets]] = {}

    def close(self) -> None:
        """Counts nothing more: the cluster was removed, and requests that end later must not make its series again."""
        self._closed = True

    def finished(self, *, method: str, host: str, code: str, seconds: float, sent: int, received: int) -> None:
        """Counts an attempt that ended."""
        if self._closed:
            return
        counter = self._counters.get((code, method, host))
        if counter is None:
            counter = self._counters[code, method, host] = self._metrics.requests.labels(code, method, host)
            self._metrics.request_series.add((code, method, host))
        histograms = self._histograms.get((method, host))
        if histograms is None:
            histograms = self._histograms[method, host] = self._make_histograms(method, host)
        latency, request_size, response_size = histograms
        counter.inc()
        latency.observe(seconds)
        request_size.observe(sent)
        response_size.observe(received)

    def _make_histograms(self, method: str, host: str) -> tuple[Buckets, Buckets, Buckets]:
        metrics = self._metrics
        return (
            metrics.request_seconds.labels(method, host),
            metrics.request_bytes.labels(method, host),
            metrics.response_bytes.labels(method, host),
        )

    def retried(self, *, method: str, host: str, code: str) -> None:
        """Counts an attempt that will be retried."""
        if self._closed:
            return
        self._metrics.retry_series.add((code, method, host))
        self._metrics.request_retries.labels(code, method, host).inc()

    def limited(self, *, method: str, host: str, seconds: float) -> None:
        """Observes the time that a request waited for the client-side rate limiter."""
        if not self._closed:
            self._metrics.throttled_seconds.labels(method, host).observe(seconds)

    def dated(self, date: str, seconds: float) -> None:
        """Passes the time of a response on."""
        if self._on_date is not None:
            self._on_date(date, seconds)

    def resolved(self, host: str, seconds: float) -> None:
        """Observes a DNS lookup of the API server."""
        self._metrics.resolution_seconds.labels(host).observe(seconds)
