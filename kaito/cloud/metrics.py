"""What the cloud room counts; `register` puts it into the manager's registry, beside the framework's metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

DURATION_BOUNDS_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class CloudMetrics:
    """Requests to the cloud, their answers and how long they took; throttling; remaining quota."""

    def __init__(self) -> None:
        self.requests = Counter(
            "gpu_provisioner_arm_requests_total",
            "Requests to the cloud's resource manager by operation and answer.",
            ["op", "code"],
            registry=None,
        )
        self.throttled = Counter(
            "gpu_provisioner_arm_throttled_total",
            "Requests refused by the cloud (429) or held back by our own limit.",
            ["by"],
            registry=None,
        )
        self.remaining = Gauge(
            "gpu_provisioner_arm_ratelimit_remaining",
            "Requests left in the subscription's bucket, as the cloud last told.",
            ["kind"],
            registry=None,
        )
        self.duration = Histogram(
            "karpenter_cloudprovider_duration_seconds",
            "Duration of cloud provider method calls.",
            ["method", "provider"],
            buckets=DURATION_BOUNDS_SECONDS,
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
            "vCPUs left in a quota family, as last read.",
            ["family"],
            registry=None,
        )

    def register(self, registry: CollectorRegistry) -> None:
        """Export everything."""
        for collector in (self.requests, self.throttled, self.remaining, self.duration, self.errors, self.quota):
            registry.register(collector)
