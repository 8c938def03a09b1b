"""Prometheus metrics of the activator."""

from typing import final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_WAIT_BOUNDS_SECONDS = (0.1, 1, 5, 15, 30, 60, 120, 180, 300, 450, 600, 900)
"""Bucket bounds: a copy that is ready answers at once, a GPU node takes minutes."""


@final
class ActivatorMetrics:
    """Counters of one process."""

    def __init__(self) -> None:
        self.held = Gauge("kaito_activator_held_requests", "Requests that wait for a copy.", registry=None)
        self.requests = Counter(
            "kaito_activator_requests",
            "Requests by result: forwarded, full, timeout, removed, too_large.",
            ("result",),
            registry=None,
        )
        self.wake_ups = Counter(
            "kaito_activator_wake_ups", "Workspaces scaled up from zero, by result.", ("result",), registry=None
        )
        self.wait_seconds = Histogram(
            "kaito_activator_wait_seconds",
            "From a request to the first byte of its answer by a copy.",
            buckets=_WAIT_BOUNDS_SECONDS,
            registry=None,
        )

    def register(self, registry: CollectorRegistry) -> None:
        """Registers all metrics."""
        for collector in (self.held, self.requests, self.wake_ups, self.wait_seconds):
            registry.register(collector)
