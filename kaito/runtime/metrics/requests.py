"""Counts the requests of the client."""

from typing import final

from prometheus_client import Counter

from kaito.runtime.metrics.metrics import Metrics
from kaito.runtime.workqueue.stats import Buckets


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
