"""What the provisioner counts, under Karpenter's names where it has one. Never labelled by object name."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LIFE_BOUNDS_SECONDS = (1, 5, 15, 30, 60, 120, 180, 240, 300, 420, 600, 900, 1800, 3600)


class ProvisionerMetrics:
    """Counters and histograms of claims and nodes; made without a registry, exported by `register`."""

    def __init__(self) -> None:
        self.terminated = Counter(
            "karpenter_nodeclaims_terminated_total", "Claims terminated.", ["nodepool"], registry=None
        )
        self.disrupted = Counter(
            "karpenter_nodeclaims_disrupted_total",
            "Claims we deleted ourselves.",
            ["reason", "nodepool"],
            registry=None,
        )
        self.termination_seconds = Histogram(
            "karpenter_nodeclaims_termination_duration_seconds",
            "From the deletion of a claim to its end.",
            ["nodepool"],
            buckets=LIFE_BOUNDS_SECONDS,
            registry=None,
        )
        self.nodes_created = Counter("karpenter_nodes_created_total", "Nodes registered.", ["nodepool"], registry=None)
        self.nodes_terminated = Counter(
            "karpenter_nodes_terminated_total", "Nodes terminated.", ["nodepool"], registry=None
        )
        self.evictions = Counter(
            "karpenter_nodes_eviction_requests_total", "Evictions asked for.", ["code"], registry=None
        )
        self.launch_failures = Counter(
            "gpu_provisioner_launch_failures_total", "Launch attempts that failed.", ["sku", "reason"], registry=None
        )
        self.stage_seconds = Histogram(
            "gpu_provisioner_time_to_stage_seconds",
            "From the creation of a claim to a stage.",
            ["stage", "sku"],
            buckets=LIFE_BOUNDS_SECONDS,
            registry=None,
        )
        self.orphans = Gauge(
            "gpu_provisioner_orphan_pools", "Instances of ours without a claim at the last scan.", registry=None
        )

    def register(self, registry: CollectorRegistry) -> None:
        """Export everything."""
        for collector in (
            self.terminated,
            self.disrupted,
            self.termination_seconds,
            self.nodes_created,
            self.nodes_terminated,
            self.evictions,
            self.launch_failures,
            self.stage_seconds,
            self.orphans,
        ):
            registry.register(collector)
