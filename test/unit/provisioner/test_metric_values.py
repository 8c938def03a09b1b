"""Every metric of the provisioner by name and labels: dashboards and alerts refer to them."""

from prometheus_client import CollectorRegistry

from kaito.provisioner.metrics import DURATION_BUCKETS_SECONDS, ProvisionerMetrics

METRICS = {
    "karpenter_nodeclaims_terminated_total": ("nodepool",),
    "karpenter_nodeclaims_disrupted_total": ("reason", "nodepool"),
    "karpenter_nodeclaims_termination_duration_seconds": ("nodepool",),
    "karpenter_nodes_created_total": ("nodepool",),
    "karpenter_nodes_terminated_total": ("nodepool",),
    "karpenter_nodes_eviction_requests_total": ("code",),
    "gpu_provisioner_launch_failures_total": ("sku", "reason"),
    "gpu_provisioner_refused_offers_total": ("sku", "capacity_type", "verdict"),
    "gpu_provisioner_refused_deletions_total": ("reason",),
    "gpu_provisioner_time_to_stage_seconds": ("stage", "sku"),
    "gpu_provisioner_orphan_pools": (),
    "gpu_provisioner_nodeclaim_phase": ("phase",),
}


def exported(metrics: ProvisionerMetrics) -> dict[str, tuple[str, ...]]:
    """The labels of each registered metric by name, without `le` of histograms."""
    registry = CollectorRegistry()
    metrics.register(registry, lambda: ["ready"])
    metrics.terminated.labels(nodepool="x")
    metrics.disrupted.labels(reason="x", nodepool="x")
    metrics.termination_seconds.labels(nodepool="x")
    metrics.nodes_created.labels(nodepool="x")
    metrics.nodes_terminated.labels(nodepool="x")
    metrics.evictions.labels(code="x")
    metrics.launch_failures.labels(sku="x", reason="x")
    metrics.rejected_offerings.labels(sku="x", capacity_type="x", verdict="x")
    metrics.rejected_deletions.labels(reason="x")
    metrics.stage_seconds.labels(stage="x", sku="x")
    found: dict[str, tuple[str, ...]] = {}
    for family in registry.collect():
        for sample in family.samples:
            name = sample.name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum")
            if not name.endswith("_created"):
                found[name] = tuple(label for label in sample.labels if label != "le")
    return found


def test_every_metric_has_its_name_and_labels() -> None:
    assert exported(ProvisionerMetrics()) == METRICS


def test_durations_have_buckets_from_a_second_to_an_hour() -> None:
    assert DURATION_BUCKETS_SECONDS == (1, 5, 15, 30, 60, 120, 180, 240, 300, 420, 600, 900, 1800, 3600)
    metrics = ProvisionerMetrics()
    metrics.termination_seconds.labels(nodepool="x")
    metrics.stage_seconds.labels(stage="x", sku="x")
    for histogram in (metrics.termination_seconds, metrics.stage_seconds):
        (family,) = histogram.collect()
        bounds = [sample.labels["le"] for sample in family.samples if "le" in sample.labels]
        assert bounds == [str(float(bound)) for bound in DURATION_BUCKETS_SECONDS] + ["+Inf"]
