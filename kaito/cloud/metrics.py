"""Prometheus metrics of cloud API calls."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

DURATION_BUCKETS_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class CloudMetrics:
    """Counts requests by result, their durations, throttling, and remaining quota; `register` adds it to a registry."""

    def __init__(self) -> None:
        self.requests = Counter(
            "gpu_provisioner_arm_requests_total",
            "Requests to the cloud's resource manager by operation and result.",
            ["op", "code"],
            registry=None,
        )
        self.throttled = Counter(
            "gpu_provisioner_arm_throttled_total",
            "Requests that the cloud (429) or the client-side rate limit throttled.",
            ["by"],
            registry=None,
        )
        self.remaining = Gauge(
            "gpu_provisioner_arm_ratelimit_remaining",
            "Remaining requests of the subscription, as last reported by the cloud.",
            ["kind"],
            registry=None,
        )
        self.duration = Histogram(
            "karpenter_cloudprovider_duration_seconds",
            "Duration of cloud provider method calls.",
            ["method", "provider"],
            buckets=DURATION_BUCKETS_SECONDS,
            registry=None,
        )
        self.errors = Counter(
            "karpenter_cloudprovider_errors_total",
            "Errors of cloud provider method calls.",
            ["method", "provider", "error"],
            registry=None,
        )
        self.quota = Gauge(
            "gpu_provisioner_quota_remaining",
            "Remaining vCPUs of a quota family, as last read.",
            ["family"],
            registry=None,
        )

    def register(self, registry: CollectorRegistry) -> None:
        """Adds all metrics to a registry."""
        for collector in (self.requests, self.throttled, self.remaining, self.duration, self.errors, self.quota):
            registry.register(collector)
