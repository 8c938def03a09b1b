"""Prometheus metrics of the provisioner, with Karpenter's names where Karpenter has the metric.

The names of objects are never labels, so that the number of series is bounded.
"""

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from typing import final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from kaito.api.karpenter import Claim
from kaito.provisioner.nodes import is_managed

PHASES = ("pending", "failed", "launched", "registered", "ready", "unhealthy", "terminating")
"""In the order in which a claim reaches them; `unhealthy` claims were ready before."""

DURATION_BUCKETS_SECONDS = (1, 5, 15, 30, 60, 120, 180, 240, 300, 420, 600, 900, 1800, 3600)


class ProvisionerMetrics:
    """Counters and histograms of claims and nodes; `register` adds them to a registry."""

    def __init__(self) -> None:
        self.terminated = Counter(
            "karpenter_nodeclaims_terminated_total", "Claims terminated.", ["nodepool"], registry=None
        )
        self.disrupted = Counter(
            "karpenter_nodeclaims_disrupted_total",
            "Claims that the provisioner deleted.",
            ["reason", "nodepool"],
            registry=None,
        )
        self.termination_seconds = Histogram(
            "karpenter_nodeclaims_termination_duration_seconds",
            "Time from the deletion of a claim until its instance does not exist.",
            ["nodepool"],
            buckets=DURATION_BUCKETS_SECONDS,
            registry=None,
        )
        self.nodes_created = Counter("karpenter_nodes_created_total", "Nodes registered.", ["nodepool"], registry=None)
        self.nodes_terminated = Counter(
            "karpenter_nodes_terminated_total", "Nodes terminated.", ["nodepool"], registry=None
        )
        self.evictions = Counter(
            "karpenter_nodes_eviction_requests_total", "Eviction requests.", ["code"], registry=None
        )
        self.launch_failures = Counter(
            "gpu_provisioner_launch_failures_total", "Launch attempts that failed.", ["sku", "reason"], registry=None
        )
        self.rejected_offerings = Counter(
            "gpu_provisioner_refused_offers_total",
            "Offerings that the cloud rejected, at creation or later, by category of the error.",
            ["sku", "capacity_type", "verdict"],
            registry=None,
        )
        self.rejected_deletions = Counter(
            "gpu_provisioner_refused_deletions_total",
            "Deletions of instances that the cloud rejected, by reason.",
            ["reason"],
            registry=None,
        )
        self.stage_seconds = Histogram(
            "gpu_provisioner_time_to_stage_seconds",
            "Time from the creation of a claim to a stage.",
            ["stage", "sku"],
            buckets=DURATION_BUCKETS_SECONDS,
            registry=None,
        )
        self.orphans = Gauge(
            "gpu_provisioner_orphan_pools", "Instances without a claim at the last garbage collection.", registry=None
        )

    def register(self, registry: CollectorRegistry, phases: Callable[[], Iterable[str] | None]) -> None:
        """Adds all metrics to a registry.

        `phases` is called at each scrape: it returns the phase of each claim, empty for claims that are not counted, or
        None on a standby.
        """
        registry.register(PhaseCollector(phases))
        for collector in (
            self.terminated,
            self.disrupted,
            self.termination_seconds,
            self.nodes_created,
            self.nodes_terminated,
            self.evictions,
            self.launch_failures,
            self.rejected_offerings,
            self.rejected_deletions,
            self.stage_seconds,
            self.orphans,
        ):
            registry.register(collector)


def phase(claim: Claim) -> str:
    """The phase of a claim, one of `PHASES`."""
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


def managed_phase(claim: Claim) -> str:
    """The phase of a claim; empty if the provisioner does not manage it."""
    return phase(claim) if is_managed(claim) else ""


@final
class PhaseCollector(Collector):
    """Counts claims by phase at each scrape, on the leader."""

    def __init__(self, phases: Callable[[], Iterable[str] | None]) -> None:
        self._phases = phases

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Describes the metric without reading claims, for the registration."""
        return [_phases()]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Counts the claims; nothing is exported on a standby."""
        phases = self._phases()
        if phases is None:
            return
        counts = Tally(phases)
        family = _phases()
        for name in PHASES:
            family.add_metric([name], counts[name])
        yield family


def _phases() -> GaugeMetricFamily:
    return GaugeMetricFamily("gpu_provisioner_nodeclaim_phase", "Claims by phase.", labels=["phase"])
