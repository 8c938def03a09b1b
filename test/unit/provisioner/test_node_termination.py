"""Termination of a node: pods are evicted in order and within their budgets, until the grace period ends."""

from typing import TYPE_CHECKING, Any

import pytest

from kaito.api import labels
from kaito.api.karpenter import NodeClaim
from kaito.provisioner.volumes import VolumeAttachment
from kaito.runtime.kinds import DaemonSet, Node, Pod
from kaito.runtime.meta import Resource

if TYPE_CHECKING:
    from test.unit.provisioner.conftest import Stage


def pod(stage: "Stage", name: str, **changes: Any) -> Pod:
    """A pod on the only node."""
    document: dict[str, Any] = {
        "metadata": {"name": name, "namespace": "default", **changes.pop("metadata", {})},
        "spec": {
            "nodeName": stage.node().name,
            "containers": [{"name": "main", "image": "example.com/main"}],
            **changes.pop("spec", {}),
        },
        "status": {"phase": "Running"},
    }
    return stage.world.put(Pod.model_validate(document))


def owned(owner: Resource) -> dict[str, Any]:
    """Metadata of a pod with an owner."""
    return {"ownerReferences": [owner.owner_reference().to_dict()]}


def daemon_set(stage: "Stage") -> DaemonSet:
    """A DaemonSet, whose pods are evicted late."""
    labels_of = {"app": "daemon"}
    template = {
        "metadata": {"labels": labels_of},
        "spec": {"containers": [{"name": "main", "image": "example.com/main"}]},
    }
    spec = {"selector": {"matchLabels": labels_of}, "template": template}
    return stage.world.put(DaemonSet.model_validate({"metadata": {"name": "daemon"}, "spec": spec}))


async def ready(stage: "Stage", **settings: Any) -> None:
    await stage.start(**settings)
    stage.claim()
    await stage.until_ready()


async def test_deletion_of_a_node_deletes_its_claim_and_pool(stage: "Stage") -> None:
    await ready(stage)
    stage.world.delete(Node, stage.node().name)
    await stage.until_gone()
    assert (stage.pools, stage.nodes) == ([], [])


async def test_pool_is_kept_until_the_node_is_drained(stage: "Stage") -> None:
    await ready(stage, default_termination_grace_period_seconds=0)
    pod(stage, "app")
    rule = stage.world.fail_next("POST", Pod, subresource="eviction", status=429, message="budget", times=None)
    stage.delete()
    await stage.world.advance(900)
    assert stage.pool().state == "Succeeded"
    assert stage.condition("Drained").reason == "Draining"
    notes = [event.note for event in stage.world.events(stage.node()) if event.reason == "FailedDraining"]
    assert any("budget" in (note or "") for note in notes)
    assert any("pods remain" in (note or "") for note in notes), "a slow drain is an event"

    stage.world.server.faults.remove(rule)
    await stage.until_gone()
    assert stage.pools == []


async def test_pods_are_deleted_after_the_grace_period(stage: "Stage") -> None:
    await ready(stage, default_termination_grace_period_seconds=600)
    pod(stage, "app", metadata={"annotations": {labels.DO_NOT_DISRUPT: "true"}})
    stage.delete()
    await stage.world.advance(300)
    assert labels.TERMINATION_TIMESTAMP in stage.get().annotations
    assert stage.world.find(Pod, "app") is not None
    assert stage.pool().state == "Succeeded"
    await stage.until_gone(within=900)
    assert stage.world.get(Pod, "app").deleting
    assert stage.pools == []


@pytest.mark.parametrize("stage", [NodeClaim], indirect=True)  # Machines have no terminationGracePeriod
async def test_grace_period_of_a_node_claim_overrides_the_default(stage: "Stage") -> None:
    await stage.start(default_termination_grace_period_seconds=0)
    stage.put("ws1", lambda document: document["spec"].update(terminationGracePeriod="5m"))
    await stage.until_ready()
    pod(stage, "app", metadata={"annotations": {labels.DO_NOT_DISRUPT: "true"}})
    stage.delete()
    await stage.world.advance(240)
    assert stage.pool().state == "Succeeded"
    await stage.until_gone(within=400)


async def test_pods_are_evicted_in_waves(stage: "Stage") -> None:
    await ready(stage)
    critical = {"priorityClassName": "system-cluster-critical"}
    daemons = daemon_set(stage)
    pod(stage, "app")
    pod(stage, "daemon", metadata=owned(daemons))
    pod(stage, "critical", spec=critical)
    pod(stage, "critical-daemon", spec=critical, metadata=owned(daemons))
    stage.world.clear_requests()
    stage.delete()
    await stage.until_gone()
    evicted = [r.name for r in stage.world.requests if r.kind == "Pod" and r.subresource == "eviction"]
    assert list(dict.fromkeys(evicted)) == ["app", "daemon", "critical", "critical-daemon"]


async def test_exempt_pods_are_not_evicted(stage: "Stage") -> None:
    await ready(stage)
    pod(stage, "tolerant", spec={"tolerations": [{"operator": "Exists"}]})
    pod(stage, "mirror", metadata=owned(stage.node()))
    done = pod(stage, "done")
    stage.world.patch(Pod, done.name, {"status": {"phase": "Succeeded"}}, subresource="status")
    stage.world.clear_requests()
    stage.delete()
    await stage.until_gone()
    assert stage.world.count("POST", Pod, subresource="eviction") == 0


async def test_volumes_are_detached_before_the_pool_is_deleted(stage: "Stage") -> None:
    await ready(stage)
    document = {
        "metadata": {"name": "csi-1"},
        "spec": {"attacher": "disk", "nodeName": stage.node().name, "source": {"persistentVolumeName": "pv-1"}},
    }
    stage.world.put(VolumeAttachment.model_validate(document))
    stage.delete()
    await stage.world.advance(120)
    assert stage.pool().state == "Succeeded"
    reasons = {event.reason for event in stage.world.events(stage.node())}
    assert "AwaitingVolumeDetachment" in reasons
    stage.world.delete(VolumeAttachment, "csi-1")
    await stage.until_gone(within=200)


async def test_node_without_an_instance_is_finalized_without_draining(stage: "Stage") -> None:
    await ready(stage)
    pod(stage, "app", metadata={"annotations": {labels.DO_NOT_DISRUPT: "true"}})
    stage.simulator.knobs.set(node_outlives_pool=True)
    stage.simulator.cluster.delete("ws1")
    await stage.world.advance(200)
    assert stage.pools == []
    stage.world.patch(
        Node,
        stage.node().name,
        {"status": {"conditions": [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]}},
        subresource="status",
    )
    stage.delete()
    await stage.until_gone(within=30)
    assert stage.nodes == []


async def test_deletion_continues_if_the_status_is_rejected(stage: "Stage") -> None:
    """Claims of older versions may fail the validation of a newer definition."""
    await ready(stage)
    pod(stage, "app")
    stage.world.fail_next("POST", Pod, subresource="eviction", status=429, times=5)
    stage.world.fail_next(
        "PATCH", stage.kind, subresource="status", status=422, message="spec.nodeClassRef", times=None
    )
    stage.delete()
    await stage.until_gone()
    assert stage.pools == []


async def test_concurrent_deletion_of_node_and_claim_deletes_the_pool_once(stage: "Stage") -> None:
    await ready(stage)
    stage.world.delete(Node, stage.node().name)
    stage.delete()
    await stage.until_gone()
    assert stage.calls("DELETE") == 1


async def test_node_without_a_claim_is_deleted_with_its_pool(stage: "Stage") -> None:
    await ready(stage)
    stage.world.patch(stage.kind, "ws1", {"metadata": {"finalizers": None}})
    stage.delete()
    assert stage.find() is None
    await stage.until("node and pool gone", lambda: not stage.nodes and not stage.pools, within=1200)
