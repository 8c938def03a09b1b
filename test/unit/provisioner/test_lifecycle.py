"""The lifecycle of a claim: launched, registered, initialized, ready, deleted."""

from typing import TYPE_CHECKING, Any

import pytest

from kaito.api import labels
from kaito.api.karpenter import Machine, NodeClaim
from kaito.runtime.kinds import Node
from kaito.runtime.meta import format_time

if TYPE_CHECKING:
    from test.unit.provisioner.conftest import Stage

A100 = "Standard_NC24ads_A100_v4"


async def test_claim_gets_a_ready_node(stage: "Stage") -> None:
    await stage.start()
    stage.claim()
    await stage.world.settle()
    assert stage.condition("launched").reason == "AgentPoolCreating"
    assert stage.pools == ["ws1"]

    claim = await stage.until_ready()
    node = stage.node()
    assert claim.status.node_name == node.name
    assert claim.status.provider_id == node.spec.provider_id
    assert [c.status for stage_name in claim.stages if (c := claim.condition(stage_name))] == ["True"] * 3
    assert claim.labels[labels.INSTANCE_TYPE] == A100
    assert claim.labels[labels.CAPACITY_TYPE] == "on-demand"
    assert labels.ZONE not in claim.labels
    assert int(claim.status.capacity["nvidia.com/gpu"]) == 1
    assert claim.status.image_id.startswith("AKSUbuntu")
    assert labels.ARM_OPERATION not in claim.annotations
    assert labels.TERMINATION_FINALIZER in node.metadata.finalizers
    assert [owner.uid for owner in node.metadata.owner_references] == [claim.uid]
    assert node.labels[labels.REGISTERED] == node.labels[labels.INITIALIZED] == "true"
    assert node.labels["apps"] == "phi-3"
    assert [taint.key for taint in node.spec.taints] == ["sku"]
    assert stage.calls("PUT") == 1
    events = {event.reason for event in stage.world.events(claim)}
    assert {"Launching", "Launched", "Registered", "Initialized"} <= events


async def test_requests_of_a_launch(stage: "Stage") -> None:
    """The finalizer and the operation are written at once; everything else of a stage is one write."""
    await stage.start()
    stage.world.clear_requests()
    stage.claim()
    await stage.until_ready()
    assert stage.world.count("patch", stage.kind, subresource="") == 3, "finalizer, operation, labels of the instance"
    assert stage.world.count("patch", stage.kind, subresource="status") == 6, "one a minute of 5 minutes, and Ready"
    assert stage.world.count("patch", Node) == 2, "finalizer; registration with initialization"
    assert stage.world.count("get", Node) == stage.world.count("list", Node) == 0


async def test_registration_copies_metadata_of_the_claim_that_the_pool_does_not_have(stage: "Stage") -> None:
    """AKS sets the labels and taints of the pool on its nodes; registration adds later changes of the claim."""
    stage.simulator.knobs.set(join_delay=200)
    await stage.start()
    stage.put("ws1", lambda document: document["metadata"].update(annotations={"team": "blue"}))
    await stage.world.advance(60)
    stage.world.patch(stage.kind, "ws1", {"metadata": {"labels": {"cost-center": "7"}}})
    properties = stage.pool().properties
    del properties["nodeLabels"]["apps"]
    properties["nodeTaints"].remove("sku=gpu:NoSchedule")
    await stage.until_ready()
    node = stage.node()
    assert (node.labels["cost-center"], node.labels["apps"]) == ("7", "phi-3")
    assert node.annotations["team"] == "blue"
    assert labels.LAUNCH_STARTED not in node.annotations
    assert [(taint.key, taint.value, taint.effect) for taint in node.spec.taints] == [("sku", "gpu", "NoSchedule")]


async def test_claim_and_node_have_labels_of_spot_and_zone(stage: "Stage") -> None:
    def spot(document: dict[str, Any]) -> None:
        document["spec"]["requirements"] += [
            {"key": labels.CAPACITY_TYPE, "operator": "In", "values": ["spot"]},
            {"key": labels.ZONE, "operator": "In", "values": ["eastus-3"]},
        ]

    await stage.start()
    stage.put("ws1", spot)
    claim = await stage.until_ready()
    for labeled in (claim.labels, stage.node().labels):
        assert (labeled[labels.CAPACITY_TYPE], labeled[labels.ZONE]) == ("spot", "eastus-3")
    assert stage.pool().properties["scaleSetPriority"] == "Spot"


async def test_pool_has_the_properties_of_the_claim(stage: "Stage") -> None:
    await stage.start()
    claim = stage.claim(annotations={labels.NODE_IMAGE_FAMILY: "AzureLinux"})
    await stage.world.settle()
    properties = stage.pool().properties
    assert (properties["count"], properties["vmSize"], properties["osDiskSizeGB"]) == (1, A100, 1024)
    assert (properties["osType"], properties["osSKU"], properties["mode"]) == ("Linux", "AzureLinux", "User")
    assert properties["nodeTaints"] == ["sku=gpu:NoSchedule"]
    created = claim.metadata.creation_timestamp
    assert created is not None
    assert (
        properties["nodeLabels"].items()
        >= {
            labels.WORKSPACE: "phi",
            labels.MACHINE_TYPE: "gpu",
            labels.CREATION_TIMESTAMP: format_time(created).replace(":", "-"),
            labels.MANAGED_BY: "gpu-provisioner",
            labels.CLAIM_UID: claim.uid,
        }.items()
    )
    assert properties["tags"]["kaito-claim-uid"] == claim.uid
    assert properties["tags"]["kaito-workspace"] == "phi"


async def test_stages_are_reached_in_order_with_reasons(stage: "Stage") -> None:
    stage.simulator.knobs.set(join_delay=400, gpu_delay=60)
    await stage.start()
    stage.claim()
    await stage.world.settle()
    seen: list[tuple[str, ...]] = []

    def record() -> bool:
        claim = stage.get()
        conditions = [claim.condition(name) for name in claim.stages]
        state = tuple(c.reason if c is not None else "" for c in conditions)
        if not seen or seen[-1] != state:
            seen.append(state)
        return claim.is_ready and all(c is not None and c.is_true for c in conditions)

    await stage.until("all stages", record, step=1)
    launched, registered, initialized = stage.kind.stages
    waiting = "AwaitingReconciliation"
    assert seen[0] == ("AgentPoolCreating", waiting, waiting)
    assert seen[-1] == (launched, registered, initialized)
    order = [state for state in seen if state[0] == launched]
    assert [state[1] for state in order][:3] == ["NodeNotFound", "ProviderIDMissing", registered]
    rest = list(dict.fromkeys(state[2] for state in order if state[1] == registered))
    assert rest[-2:] == ["ResourceNotRegistered", initialized]
    assert "NodeNotReady" in rest


async def test_pending_stage_is_false_on_a_machine_and_unknown_on_a_node_claim(stage: "Stage") -> None:
    stage.simulator.knobs.set(never_join=True)
    await stage.start()
    stage.claim()
    await stage.world.advance(320)
    registered, ready = stage.condition("registered"), stage.condition("Ready")
    assert registered.reason == "NodeNotFound"
    if stage.kind is Machine:
        assert (registered.status, ready.status, ready.reason) == ("False", "False", "NodeNotFound")
    else:
        assert (registered.status, ready.status, ready.reason) == ("Unknown", "Unknown", "ReconcilingDependents")
        assert ready.message == "Registered=Unknown, Initialized=Unknown"


async def test_deletion_cordons_drains_and_deletes_in_order(stage: "Stage") -> None:
    await stage.start()
    stage.claim()
    await stage.until_ready()
    stage.delete()
    await stage.world.settle()
    node = stage.node()
    assert node.deleting
    assert any(taint.key == labels.TAINT_DISRUPTED for taint in node.spec.taints)
    assert node.labels[labels.EXCLUDE_FROM_LOAD_BALANCERS] == "karpenter"
    assert stage.pool().state == "Deleting"
    await stage.world.advance(100)
    assert stage.find() is not None, "the claim waits for its instance"
    assert stage.nodes, "the Node is deleted last"

    await stage.until_gone(within=60)
    assert stage.pools == []
    assert stage.nodes == []
    assert stage.calls("DELETE") == 1


async def test_claim_is_deleted_within_seconds_after_its_pool(stage: "Stage") -> None:
    await stage.start()
    stage.claim()
    await stage.until_ready()
    stage.delete()
    await stage.until("pool gone", lambda: not stage.pools, step=1)
    await stage.until_gone(within=25)


async def test_claim_deleted_during_creation_leaves_no_pool(stage: "Stage") -> None:
    await stage.start()
    stage.claim()
    await stage.world.advance(60)
    assert stage.pool().state == "Creating"
    stage.delete()
    await stage.until_gone(within=200)
    assert stage.pools == []
    assert stage.nodes == []


async def test_deletion_is_retried_if_azure_rejects_it_during_creation(stage: "Stage") -> None:
    cluster = stage.simulator.cluster
    cluster.settings = cluster.settings.model_copy(update={"delete_while_creating": False})
    await stage.start()
    stage.claim()
    await stage.world.advance(60)
    stage.delete()
    await stage.world.advance(60)
    assert stage.condition("InstanceTerminating").reason == "CloudBusy"
    await stage.until_gone(within=600)
    assert stage.pools == []


async def test_ready_claim_causes_no_requests(stage: "Stage") -> None:
    await stage.start(gc_interval_seconds=1e6)
    stage.claim()
    await stage.until_ready()
    stage.simulator.api.requests.clear()
    stage.world.clear_requests()
    await stage.world.advance(3600)
    assert list(stage.simulator.api.requests) == []
    assert stage.world.count("patch") == 0


async def test_claims_of_other_provisioners_are_ignored(stage: "Stage") -> None:
    def foreign(document: dict[str, Any]) -> None:
        document["metadata"]["labels"] = {"team": "blue"}
        if stage.kind is NodeClaim:
            group, kind = "karpenter.azure.com", "AKSNodeClass"
            document["spec"]["nodeClassRef"] = {"group": group, "kind": kind, "name": "default"}

    await stage.start()
    stage.put("other", foreign)
    await stage.world.advance(60)
    assert stage.get("other").metadata.finalizers == []
    assert stage.get("other").status.conditions == []
    assert stage.pools == []


@pytest.mark.parametrize("stage", [NodeClaim], indirect=True)  # Machines have no node class
async def test_node_claim_with_the_node_class_needs_no_label(stage: "Stage") -> None:
    await stage.start()
    stage.put("ws2", lambda document: document["metadata"].pop("labels"))
    await stage.until_ready("ws2")
    assert stage.node().labels[labels.MANAGED_BY] == "gpu-provisioner"
    stage.delete("ws2")
    await stage.until_gone("ws2")
    assert stage.nodes == []


async def test_ready_of_the_node_is_mirrored_on_the_claim(stage: "Stage") -> None:
    await stage.start()
    stage.claim()
    await stage.until_ready()
    stage.simulator.knobs.set(not_ready=True)
    await stage.world.advance(5)
    ready = stage.condition("Ready")
    assert (ready.status, ready.reason) == ("False", "NodeNotReady")
    assert "KubeletNotReady" in ready.message
    assert "NodeUnhealthy" in {event.reason for event in stage.world.events(stage.get())}
    assert stage.condition("initialized").is_true, "Initialized stays True"

    stage.simulator.knobs.set(not_ready=False)
    await stage.world.advance(5)
    assert stage.condition("Ready").is_true


async def test_claim_is_not_ready_after_missing_heartbeats(stage: "Stage") -> None:
    await stage.start()
    stage.claim()
    await stage.until_ready()
    stage.simulator.knobs.set(heartbeat_stop=True)
    await stage.world.advance(60)
    assert stage.condition("Ready").reason == "NodeNotReady"


async def test_second_node_does_not_replace_the_registered_one(stage: "Stage") -> None:
    await stage.start()
    stage.claim()
    claim = await stage.until_ready()
    node = stage.node()
    twin = node.evolve(
        metadata=node.metadata.evolve(name=f"{node.name[:-1]}1", uid="", resource_version="", finalizers=[])
    )
    stage.world.put(twin)
    await stage.world.advance(300)
    assert stage.get().is_ready
    assert stage.get().status.node_name == claim.status.node_name
    stage.delete()
    await stage.until_gone()
    assert stage.world.list(Node) == []


async def test_two_nodes_before_registration_are_reported(stage: "Stage") -> None:
    stage.simulator.knobs.set(join_twice=True)
    await stage.start()
    stage.claim()
    await stage.world.advance(320)
    assert stage.condition("registered").reason == "MultipleNodesFound"
    spare = stage.nodes[1]
    stage.world.delete(Node, spare.name)
    stage.world.patch(Node, spare.name, {"metadata": {"finalizers": None}})
    await stage.until_ready()


async def test_provider_id_is_matched_case_insensitively(stage: "Stage") -> None:
    stage.simulator.knobs.set(lowercase_resource_group=True)
    await stage.start()
    stage.claim()
    claim = await stage.until_ready()
    assert "mc_kaito" in claim.status.provider_id


async def test_startup_taints_delay_initialization(stage: "Stage") -> None:
    def starting(document: dict[str, Any]) -> None:
        document["spec"]["startupTaints"] = [{"key": "example.com/starting", "effect": "NoSchedule"}]

    await stage.start()
    stage.put("ws1", starting)
    await stage.world.advance(400)
    initialized = stage.condition("initialized")
    assert initialized.reason == "StartupTaintsExist"
    assert 'StartupTaint "example.com/starting:NoSchedule" still exists' in initialized.message
    node = stage.node()
    taints = [taint for taint in node.spec.taints if taint.key != "example.com/starting"]
    stage.world.put(node.evolve(spec=node.spec.evolve(taints=taints)))
    await stage.until_ready(within=30)
