"""What the provisioner counts, under Karpenter's names where it has one. Never labeled by object name."""

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from typing import final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from kaito.api.karpenter import Claim

PHASES = ("pending", "failed", "launched", "registered", "ready", "unhealthy", "terminating")
"""In the order of a claim's life; `unhealthy` was ready once."""

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
        self.refused_offers = Counter(
            "gpu_provisioner_refused_offers_total",
            "Sizes that the cloud refused at creation or after it, by capacity type and verdict.",
            ["sku", "capacity_type", "verdict"],
            registry=None,
        )
        self.refused_deletions = Counter(
            "gpu_provisioner_refused_deletions_total",
            "Deletions of instances that the cloud refused, by reason.",
            ["reason"],
            registry=None,
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

    def register(self, registry: CollectorRegistry, claims: Callable[[], Iterable[Claim]]) -> None:
        """Export everything; `claims` is asked at each scrape."""
        registry.register(PhaseCollector(claims))
        for collector in (
            self.terminated,
            self.disrupted,
            self.termination_seconds,
            self.nodes_created,
            self.nodes_terminated,
            self.evictions,
            self.launch_failures,
            self.refused_offers,
            self.refused_deletions,
            self.stage_seconds,
            self.orphans,
        ):
            registry.register(collector)


def phase(claim: Claim) -> str:
    """The stage a claim has reached, or what keeps it from the next one."""
    if claim.deleting:
        return "terminating"
    if claim.is_ready:
        return "ready"
    launched, registered, initialized = map(claim.condition, claim.stages)
    if launched is not None and launched.status == "False":
        return "failed"
    reached = [name for name, c in (("launched", launched), ("registered", registered)) if c is not None and c.is_true]
    if initialized is not None and initialized.is_true:
        return "unhealthy"
    return reached[-1] if reached else "pending"


@final
class PhaseCollector(Collector):
    """Claims by phase, counted at the moment of the scrape."""

    def __init__(self, claims: Callable[[], Iterable[Claim]]) -> None:
        self._claims = claims

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The name without a scrape, so that registering reads nothing."""
        return [_phases()]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauge as of now."""
        counted = Tally(phase(claim) for claim in self._claims())
        family = _phases()
        for name in PHASES:
            family.add_metric([name], counted[name])
        yield family


def _phases() -> GaugeMetricFamily:
    return GaugeMetricFamily("gpu_provisioner_nodeclaim_phase", "Claims by phase.", labels=["phase"])
