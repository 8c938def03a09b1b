"""Metrics: claims by phase, and their export."""

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from kaito.provisioner.flags import parse
from kaito.provisioner.main import manager_for
from kaito.provisioner.metrics import ProvisionerMetrics, phase

if TYPE_CHECKING:
    from test.unit.provisioner.conftest import Stage


async def test_phase_follows_the_claim(stage: "Stage") -> None:
    seen: list[str] = []

    def record() -> str:
        now = phase(stage.get())
        if not seen or seen[-1] != now:
            seen.append(now)
        return now

    await stage.start()
    stage.simulator.cluster.quota["standardncadsa100v4family"] = 0
    stage.claim()
    record()
    await stage.world.settle()
    record()
    stage.simulator.cluster.quota.clear()
    stage.simulator.knobs.set(join_delay=400)
    await stage.until("ready", lambda: record() == "ready", step=2)
    stage.simulator.knobs.set(not_ready=True)
    await stage.until("unhealthy", lambda: record() == "unhealthy")
    stage.delete()
    record()
    assert seen == ["pending", "failed", "pending", "launched", "registered", "ready", "unhealthy", "terminating"]


async def test_gauge_counts_claims_by_phase(stage: "Stage") -> None:
    await stage.start()
    stage.claim("ws1")
    await stage.until_ready("ws1")
    stage.claim("bad-name")
    await stage.world.settle()
    assert stage.deps is not None
    registry = CollectorRegistry()
    stage.deps.metrics.register(registry, lambda: map(phase, stage.world.list(stage.kind)))

    def count(name: str) -> float | None:
        return registry.get_sample_value("gpu_provisioner_nodeclaim_phase", {"phase": name})

    assert (count("ready"), count("failed"), count("pending")) == (1, 1, 0)
    pool = "default" if stage.kind.kind == "Machine" else "kaito"
    assert registry.get_sample_value("karpenter_nodes_created_total", {"nodepool": pool}) == 1


def test_a_standby_exports_no_phases() -> None:
    registry = CollectorRegistry()
    ProvisionerMetrics().register(registry, lambda: None)
    assert registry.get_sample_value("gpu_provisioner_nodeclaim_phase", {"phase": "ready"}) is None


async def test_manager_exports_metrics_of_cloud_and_claims() -> None:
    environment = {"ARM_SUBSCRIPTION_ID": "s", "ARM_RESOURCE_GROUP": "g", "AZURE_CLUSTER_NAME": "c"}
    flags = ["--arm-endpoint=http://127.0.0.1:1", "--azure-credential=fake", "--metrics-bind-address=0"]
    manager = manager_for(parse(flags, environment), ())
    names = {metric.name for metric in manager.metrics.registry.collect()}
    assert names >= {
        "gpu_provisioner_arm_requests",
        "karpenter_nodeclaims_terminated",
        "karpenter_cloudprovider_errors",
        "controller_runtime_reconcile",
    }
