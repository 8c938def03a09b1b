"""A Workspace with a Karpenter NodePool (`--node-api karpenter`), in virtual time with a stand-in for Karpenter."""

from itertools import pairwise
from typing import Any

import pytest

from kaito.api import NodeClaim, Workspace, labels
from kaito.api.karpenter import NodePool
from kaito.runtime.client import Client
from kaito.runtime.crd import Version, crd
from kaito.runtime.kinds import Event, Job, Namespace, Pod, Secret, StatefulSet
from kaito.runtime.meta import ObjectMeta, Quantity, format_time
from kaito.runtime.testing import World, builders
from kaito.workspace.manifests.node_pool import node_pool_name
from kaito.workspace.node_class import NodeClassSettings
from kaito.workspace.preflight import validate_workspace
from kaito.workspace.preflight.offline import ManifestReader
from kaito.workspace.preview import preview
from kaito.workspace.settings import NodeApi, WorkspaceSettings
from test.support.node_pools import Pools
from test.unit.workspace.inference_sets.conftest import inference_set
from test.unit.workspace.test_node_class import KwokClass, put_class
from test.unit.workspace.test_replacement import tell
from test.unit.workspace.test_tuning_ttl import tuning

NAME = "workspace-phi-3-mini"
STAGES = ("Launched", "Registered", "Initialized", "Ready")
READY = [{"type": kind, "status": "True", "reason": kind} for kind in STAGES]
DRIFTED = {"type": "Drifted", "status": "True", "reason": "NodePoolDrifted"}
GROUP = "karpenter.kwok.sh"


@pytest.fixture
def node_api() -> NodeApi:
    return NodeApi.KARPENTER


@pytest.fixture
async def pools(world: World) -> Pools:
    node_class = NodeClassSettings(karpenter_node_class_group=GROUP)
    cluster = Pools(world, WorkspaceSettings(node_api=NodeApi.KARPENTER, node_class=node_class))
    world.install(crd([Version(model=KwokClass, storage=True)]))
    for name in ("default", "gpu"):
        put_class(world, name)
    return cluster


def with_(workspace: Workspace, *, replicas: int | None = None, **resource: Any) -> Workspace:
    document = workspace.to_dict()
    document["spec"] = {} if replicas is None else {"replicas": replicas}
    document["resource"] |= resource
    if "instanceTypes" in resource:
        del document["resource"]["instanceType"]
    return Workspace.model_validate(document)


def message(pools: Pools, kind: str = "NodeClaimReady") -> str:
    status, reason, text = pools.conditions()[kind]
    return f"{status} {reason}: {text}"


async def run_pods(pools: Pools) -> None:
    """Makes one pod of the StatefulSet exist on each node, and no others; ends pods of higher numbers."""
    replicas = pools.world.get(StatefulSet, NAME).spec.replicas or 0
    nodes = sorted(claim.status.node_name for claim in pools.claims() if not claim.deleting)
    for pod in pools.world.list(Pod):
        if int(pod.name.rpartition("-")[2]) >= replicas:
            client = Client(pools.world.transport(agent="kubelet"), field_manager="kubelet")
            await client.delete(pod, grace_seconds=0)
    for number, node in enumerate(nodes[:replicas]):
        if pools.world.find(Pod, f"{NAME}-{number}") is None:
            pools.world.put(builders.pod(f"{NAME}-{number}", node_name=node, labels={labels.WORKSPACE: NAME}))


async def serve(pools: Pools) -> None:
    await pools.fulfill()
    await run_pods(pools)
    pools.serve()
    await pools.world.settle()


async def test_a_workspace_has_one_pool_and_its_claims_and_nodes(pools: Pools, phi: Workspace) -> None:
    pools.apply(with_(phi, replicas=2))
    async with pools.controller():
        await serve(pools)
        pool = pools.pool()
        assert pool.name == node_pool_name(pools.workspace())
        assert pool.labels[labels.WORKSPACE] == NAME
        assert (pool.spec.replicas, pool.spec.limits) == (2, {"nodes": Quantity(3)})
        assert str(pool.spec.template.spec.node_class_ref) == "karpenter.kwok.sh/KWOKNodeClass/default"
        assert pool.spec.template.spec.expire_after == "Never"
        requirements = {each.key: each.values for each in pool.spec.template.spec.requirements}
        assert requirements == {
            labels.INSTANCE_TYPE: ["Standard_NC6s_v3"],
            labels.OS: ["linux"],
            labels.CAPACITY_TYPE: ["on-demand"],
        }
        assert [str(taint) for taint in pool.spec.template.spec.taints] == ["sku=gpu:NoSchedule"]
        assert [(each.nodes, each.reasons) for each in pool.spec.disruption.budgets] == [
            ("1", ["Drifted"]),
            ("0", ["Empty", "Underutilized"]),
        ]
        assert pools.columns() == ("True", "True", "True")
        assert message(pools) == "True NodeClaimsReady: 2 of 2 node claims ready"
        assert pools.workspace().status.claims == sorted(claim.name for claim in pools.claims())
        assert pools.workspace().status.cost is not None
        pools.world.clear_requests()
        await pools.world.advance(600)
        assert not [each for each in pools.world.requests if "nodepools" in each.path and each.method != "GET"]


async def test_deletion_deletes_pool_and_claims(pools: Pools, phi: Workspace) -> None:
    pools.apply(with_(phi, replicas=2))
    async with pools.controller():
        await serve(pools)
        pool = pools.pool()
        pools.world.delete(Workspace, NAME)
        late = pools.create(pool)  # Karpenter had begun to create it
        await pools.world.settle()
        assert pools.pools() == []
        await pools.world.advance(30)
        assert pools.claims() == []
        assert pools.world.find(Workspace, NAME) is None
        assert pools.world.find(NodeClaim, late.name, "") is None


async def test_scaling_down_gives_back_the_node_without_a_pod(pools: Pools, phi: Workspace) -> None:
    pools.apply(with_(phi, replicas=3))
    async with pools.controller():
        await serve(pools)
        pools.world.patch(Workspace, NAME, {"spec": {"replicas": 1}})
        await pools.world.settle()
        assert pools.replicas() == 3, "the pods end first"
        pools.serve()
        await pools.world.settle()
        assert pools.replicas() == 3, "the nodes of pods that end are kept"
        await run_pods(pools)
        await pools.world.advance(61)
        assert pools.replicas() == 1
        await pools.fulfill()
        (left,) = pools.claims()
        (pod,) = pools.world.list(Pod)
        assert left.status.node_name == pod.spec.node_name
        assert pools.columns() == ("True", "True", "True")
        pools.world.patch(Workspace, NAME, {"spec": {"replicas": 2}})
        await serve(pools)
        assert (pools.replicas(), len(pools.claims())) == (2, 2)
        assert "lost" not in message(pools)


async def test_no_copies_and_back(pools: Pools, phi: Workspace) -> None:
    pools.apply(with_(phi, replicas=1))
    async with pools.controller():
        await serve(pools)
        pools.world.patch(Workspace, NAME, {"spec": {"replicas": 0}})
        await pools.world.settle()
        pools.serve()
        await run_pods(pools)
        await pools.world.advance(61)
        await pools.fulfill()
        assert (pools.replicas(), pools.claims()) == (0, [])
        pools.world.patch(Workspace, NAME, {"spec": {"replicas": 1}})
        await serve(pools)
        assert pools.columns() == ("True", "True", "True")


@pytest.mark.parametrize("moment", ["before the nodes", "while the workload is created", "while it serves"])
async def test_another_class_reaches_the_pool_whenever_it_is_set(pools: Pools, phi: Workspace, moment: str) -> None:
    pools.apply(with_(phi, replicas=2))
    change = {"metadata": {"annotations": {labels.NODE_CLASS: f"{GROUP}/KWOKNodeClass/gpu"}}}
    async with pools.controller():
        if moment == "before the nodes":
            await pools.world.settle()
        elif moment == "while the workload is created":
            await pools.fulfill()
        else:
            await serve(pools)
        pools.world.patch(Workspace, NAME, change)
        await pools.world.settle()
        assert pools.pool().spec.template.spec.node_class_ref.name == "gpu"
        await serve(pools)
        before = {claim.name for claim in pools.claims()}
        while pools.drift_step():
            await pools.world.settle()
            ready = [claim for claim in pools.claims() if claim.is_ready and not claim.deleting]
            assert len(ready) == 2
            assert pools.replicas() == 2
            assert pools.columns()[0] == "True"
        after = {claim.name for claim in pools.claims()}
        assert len(after) == 2
        assert not before & after if moment != "before the nodes" else before == after
        assert "lost" not in message(pools)


async def test_a_class_that_does_not_exist_does_not_reach_a_pool_with_nodes(pools: Pools, phi: Workspace) -> None:
    pools.apply(phi)
    async with pools.controller():
        await serve(pools)
        change = {"metadata": {"annotations": {labels.NODE_CLASS: f"{GROUP}/KWOKNodeClass/later"}}}
        pools.world.patch(Workspace, NAME, change)
        await pools.world.settle()
        assert pools.pool().spec.template.spec.node_class_ref.name == "default"
        assert pools.columns() == ("True", "True", "True")
        assert f"the node class is not changed: node class {GROUP}/KWOKNodeClass/later does not exist" in message(pools)
        put_class(pools.world, "later")
        await pools.world.advance(61)
        assert pools.pool().spec.template.spec.node_class_ref.name == "later"


async def test_a_missing_class_is_reported_before_the_pool_exists(pools: Pools, phi: Workspace) -> None:
    annotations = {labels.NODE_CLASS: f"{GROUP}/KWOKNodeClass/later"}
    pools.apply(phi.with_metadata(annotations=annotations))
    async with pools.controller():
        await pools.world.settle()
        assert pools.pools() == []
        assert message(pools).startswith("False NodeClassNotFound: ")
        put_class(pools.world, "later")
        await pools.world.advance(15)
        await serve(pools)
        assert pools.columns() == ("True", "True", "True")


async def test_a_lost_claim_is_replaced_at_once_and_counted_once(pools: Pools, phi: Workspace) -> None:
    pools.apply(phi)
    async with pools.controller():
        await serve(pools)
        (first,) = pools.claims()
        pools.world.delete(NodeClaim, first.name)
        await pools.world.settle()
        assert pools.replicas() == 1, "Karpenter replaces it without a pause"
        await serve(pools)
        assert message(pools).startswith("True NodeClaimsReady: 1 of 1 node claims ready; claims were lost once")
        await pools.world.advance(660)
        assert message(pools) == "True NodeClaimsReady: 1 of 1 node claims ready"


async def test_claims_that_the_cloud_refuses_are_paused_longer_and_longer(pools: Pools, phi: Workspace) -> None:
    """Karpenter creates a refused claim again at once; the pool is reduced, and grows after growing pauses."""
    pools.apply(phi)
    created: list[float] = []
    async with pools.controller():
        await pools.world.settle()
        start = pools.world.now
        for _ in range(400):
            if pools.scale_step():
                created.append((pools.world.now - start).total_seconds())
                await pools.world.settle()
                for claim in pools.claims():
                    refuse(pools, claim.name)
            await pools.world.advance(2)
        pauses = [round(later - earlier) for earlier, later in pairwise(created)]
        assert [pause for pause in pauses if pause > 10] == sorted(pause for pause in pauses if pause > 10)
        assert len(created) <= 8, created
        assert max(pauses) >= 200
        assert "InsufficientCapacityError" in message(pools)
        assert "the next claim is created" in message(pools)
        assert pools.replicas() == 0


def refuse(pools: Pools, name: str) -> None:
    """Deletes a claim as Karpenter does without capacity: an Event contains the cause."""
    claim = pools.world.get(NodeClaim, name)
    pools.world.delete(NodeClaim, name)
    tell(pools, claim, "InsufficientCapacityError", f"NodeClaim {name} event: no capacity")


async def test_the_next_alternative_is_used_if_the_cloud_is_out_of_the_first(pools: Pools, phi: Workspace) -> None:
    pools.apply(with_(phi, instanceTypes=["Standard_NC6s_v3", "Standard_NC24ads_A100_v4"]))
    async with pools.controller():
        await pools.world.settle()
        for _ in range(20):
            if pools.pools() and pools.scale_step():
                await pools.world.settle()
                for claim in pools.claims():
                    if claim.instance_type == "Standard_NC6s_v3":
                        refuse(pools, claim.name)
            await pools.world.advance(3)
        await serve(pools)
        assert pools.columns() == ("True", "True", "True")
        (claim,) = pools.claims()
        assert claim.instance_type == "Standard_NC24ads_A100_v4"
        assert pools.workspace().status.instance_type == "Standard_NC24ads_A100_v4"


async def test_a_budget_keeps_the_pool_small(pools: Pools, phi: Workspace) -> None:
    pools.settings = pools.settings.model_copy(update={"region": "eastus"})
    pools.world.patch(Namespace, "default", {"metadata": {"annotations": {labels.HOURLY_BUDGET: "4.00"}}})
    pools.apply(with_(phi, replicas=1))
    async with pools.controller():
        await serve(pools)
        pools.world.patch(Workspace, NAME, {"spec": {"replicas": 3}})
        await pools.world.advance(5)
        assert pools.replicas() == 1
        assert message(pools).startswith("False BudgetExceeded")
        pools.world.patch(Namespace, "default", {"metadata": {"annotations": {labels.HOURLY_BUDGET: "400.00"}}})
        await pools.world.advance(70)
        await serve(pools)
        assert pools.replicas() == 3


async def test_a_pool_without_claims_is_reported_with_the_feature_gate(pools: Pools, phi: Workspace) -> None:
    pools.apply(phi)
    async with pools.controller():
        await pools.world.advance(50)
        assert message(pools).startswith("False NodeClaimNotReady")
        await pools.world.advance(20)
        assert message(pools).startswith("False NodePoolIgnored")
        assert "feature gate StaticCapacity=true" in message(pools)
        not_ready = {"type": "Ready", "status": "False", "reason": "UnhealthyDependents", "message": ""}
        cause = {"type": "NodeClassReady", "status": "False", "reason": "NodeClassNotFound", "message": "no class"}
        moment = {"lastTransitionTime": "2030-01-01T00:00:00Z"}
        status = {"status": {"conditions": [not_ready | moment, cause | moment]}}
        pools.world.patch(NodePool, pools.pool().name, status, subresource="status")
        await pools.world.settle()
        assert "NodePoolNotReady" in message(pools)
        assert "NodeClassReady: NodeClassNotFound: no class" in message(pools)


async def test_an_orphaned_pool_is_deleted(pools: Pools, phi: Workspace) -> None:
    pools.apply(phi)
    async with pools.controller():
        await serve(pools)
    pools.world.patch(Workspace, NAME, {"metadata": {"finalizers": []}})
    pools.world.delete(Workspace, NAME)
    async with pools.controller():
        await pools.world.advance(1500)
        assert pools.pools() == []
        assert pools.claims() == []


async def test_the_pool_is_deleted_with_its_workspace_after_a_change_of_the_node_api(
    pools: Pools, phi: Workspace
) -> None:
    """Otherwise Karpenter would create the claims again."""
    pools.apply(phi)
    async with pools.controller():
        await serve(pools)
    pools.settings = pools.settings.model_copy(update={"node_api": NodeApi.NODECLAIM})
    async with pools.controller():
        await pools.world.settle()
        pools.world.delete(Workspace, NAME)
        await pools.world.advance(20)
        assert pools.pools() == []
        assert pools.claims() == []
        assert pools.world.find(Workspace, NAME) is None


async def test_claims_of_an_earlier_node_api_count(pools: Pools, phi: Workspace) -> None:
    pools.settings = pools.settings.model_copy(update={"node_api": NodeApi.NODECLAIM})
    pools.apply(with_(phi, replicas=1))
    async with pools.controller():
        await pools.until_serving()
    pools.settings = pools.settings.model_copy(update={"node_api": NodeApi.KARPENTER})
    async with pools.controller():
        await pools.world.settle()
        assert pools.pools() == []
        pools.world.patch(Workspace, NAME, {"spec": {"replicas": 2}})
        await pools.fulfill()
        assert pools.replicas() == 1
        assert len(pools.claims()) == 2


async def test_a_node_that_is_not_ready_for_too_long_is_replaced(pools: Pools, phi: Workspace) -> None:
    pools.apply(phi)
    async with pools.controller():
        await serve(pools)
        (claim,) = pools.claims()
        pools.node_ready(claim.status.node_name, "False", "kubelet stopped")
        await pools.world.advance(630)
        assert pools.claims() == []
        await pools.fulfill()
        assert len(pools.claims()) == 1


@pytest.mark.parametrize(("copies", "refused"), [(None, False), (1, True)])
async def test_on_demand_copies_are_refused_with_the_reason(
    pools: Pools, phi: Workspace, copies: int | None, *, refused: bool
) -> None:
    """Every node of a static pool has the same template."""
    fields = {} if copies is None else {"onDemandCopies": copies}
    workspace = with_(phi, capacityType="spot-preferred", **fields)
    found = [each for each in validate_workspace(workspace, None, pools.settings) if each.severity == "error"]
    assert bool(found) == refused
    assert all("--node-api nodeclaim" in each.message for each in found)


async def test_capacity_types_and_zones_are_requirements_of_the_pool(pools: Pools, phi: Workspace) -> None:
    pools.apply(with_(phi, capacityType="spot-preferred", zones=["eastus-1", "eastus-2"]))
    async with pools.controller():
        await pools.world.settle()
        requirements = {each.key: each.values for each in pools.pool().spec.template.spec.requirements}
        assert requirements[labels.CAPACITY_TYPE] == ["spot", "on-demand"]
        assert requirements[labels.ZONE] == ["eastus-1", "eastus-2"]


async def test_a_pool_that_takes_the_place_of_a_preferred_node_names_the_reason(pools: Pools, phi: Workspace) -> None:
    pools.apply(with_(phi, preferredNodes=["gpu-a"]))
    async with pools.controller():
        await serve(pools)
        (note,) = (each.note for each in pools.world.list(Event) if each.reason == "PreferredNodesNotUsed")
        assert note == f"preferred node gpu-a does not exist; NodePool {pools.pool().name} grows to 1 instead"


async def test_the_nodes_of_an_ended_run_are_given_back(pools: Pools, phi: Workspace) -> None:
    push = Secret(metadata=ObjectMeta(name="push"), type="kubernetes.io/dockerconfigjson")
    pools.world.put(push.with_value(".dockerconfigjson", b'{"auths": {}}'))
    pools.apply(tuning(phi, 600))
    async with pools.controller():
        await pools.fulfill()
        ended = {"type": "Complete", "status": "True", "reason": "Complete"}
        ended["lastTransitionTime"] = format_time(pools.world.now)
        pools.world.patch(Job, "tune", {"status": {"conditions": [ended], "active": 0}}, subresource="status")
        await pools.world.advance(620)
        assert pools.pools() == []
        assert pools.claims() == []
        assert pools.conditions("tune")["ResourceReady"][1] == "NodesReleased"
        await pools.world.advance(7200)
        assert pools.pools() == []


async def test_a_plan_contains_the_pool_that_the_controller_applies(pools: Pools, phi: Workspace) -> None:
    workspace = with_(phi, replicas=2)
    planned = await preview(workspace, pools.settings, ManifestReader(), now=pools.world.now)
    assert (planned.new_claims, planned.objects.claims) == (2, ())
    pools.apply(workspace)
    async with pools.controller():
        await pools.world.settle()
        assert planned.objects.pool is not None
        found, wanted = pools.pool(), planned.objects.pool
        assert found.spec.disruption == wanted.spec.disruption
        assert found.spec.template.spec == wanted.spec.template.spec
        assert (found.spec.replicas, found.spec.limits) == (wanted.spec.replicas, wanted.spec.limits)


def mark_drifted(pools: Pools, claim: NodeClaim) -> None:
    status = claim.status
    pools.set_claim_status(claim, *READY, DRIFTED, nodeName=status.node_name, providerID=status.provider_id)


async def test_the_next_node_is_replaced_when_all_copies_are_ready_again(pools: Pools, phi: Workspace) -> None:
    """The copy of the first node loads its model on the new one."""
    pools.apply(with_(phi, replicas=2))
    async with pools.controller():
        await serve(pools)
        for claim in pools.claims():
            assert isinstance(claim, NodeClaim)
            mark_drifted(pools, claim)
        await pools.world.settle()
        assert pools.pool().spec.disruption.budgets[0].nodes == "1"
        assert "Karpenter replaces one node at a time" in message(pools)
        first = pools.claims()[0]
        pools.join(pools.create(pools.pool()))
        pools.world.delete(NodeClaim, first.name)
        pools.serve(ready=1)
        await pools.world.settle()
        assert pools.pool().spec.disruption.budgets[0].nodes == "0"
        assert "is replaced when all copies are Ready" in message(pools)
        pools.serve(ready=0)
        await pools.world.settle()
        assert pools.pool().spec.disruption.budgets[0].nodes == "1", "there is nothing to protect"
        pools.serve(ready=2)
        await pools.world.settle()
        assert pools.pool().spec.disruption.budgets[0].nodes == "1"


async def test_the_workspaces_of_a_set_replace_their_nodes_in_turns(pools: Pools) -> None:
    """A node class or an image that changes would otherwise move the copies of all Workspaces at the same time."""
    pools.world.put(inference_set(replicas=3))

    def budget(name: str) -> str:
        (pool,) = [pool for pool in pools.pools() if pool.labels[labels.WORKSPACE] == name]
        return pool.spec.disruption.budgets[0].nodes

    async def serve_all() -> None:
        for _ in range(3):
            await pools.fulfill()
            for workspace in pools.world.list(StatefulSet):
                pools.serve(workspace.name)
            await pools.world.settle()

    def drift(*names: str) -> None:
        for claim in pools.claims():
            if isinstance(claim, NodeClaim) and claim.labels[labels.WORKSPACE] in names:
                mark_drifted(pools, claim)

    async with pools.controller():
        await serve_all()
        assert [budget(f"phi-{number}") for number in range(3)] == ["0", "0", "0"]
        drift("phi-1", "phi-2")
        await pools.world.advance(1)
        assert [budget(f"phi-{number}") for number in range(3)] == ["0", "1", "0"]
        assert "are replaced when Workspace phi-1 has its new nodes" in pools.conditions("phi-2")["NodeClaimReady"][2]
        (old,) = [claim for claim in pools.claims() if claim.labels[labels.WORKSPACE] == "phi-1"]
        (pool,) = [pool for pool in pools.pools() if pool.labels[labels.WORKSPACE] == "phi-1"]
        pools.join(pools.create(pool))
        pools.serve("phi-1", ready=0)  # its pod moves to the new node
        pools.world.delete(NodeClaim, old.name)
        await pools.world.advance(16)
        assert [budget(f"phi-{number}") for number in range(3)] == ["0", "0", "0"]
        assert "are replaced when Workspace phi-1 serves" in pools.conditions("phi-2")["NodeClaimReady"][2]
        pools.serve("phi-1")
        await pools.world.advance(16)
        assert [budget(f"phi-{number}") for number in range(3)] == ["0", "0", "1"]


async def test_a_workspace_keeps_its_turn_if_nodes_of_an_earlier_one_differ_later(pools: Pools) -> None:
    """Karpenter marks the claims one after the other."""
    pools.world.put(inference_set(replicas=3))

    def opened() -> list[str]:
        return sorted(p.labels[labels.WORKSPACE] for p in pools.pools() if p.spec.disruption.budgets[0].nodes == "1")

    async with pools.controller():
        for _ in range(3):
            await pools.fulfill()
            for workload in pools.world.list(StatefulSet):
                pools.serve(workload.name)
            await pools.world.settle()
        claims = {claim.labels[labels.WORKSPACE]: claim for claim in pools.world.list(NodeClaim)}
        for name in ("phi-2", "phi-0", "phi-1"):
            mark_drifted(pools, claims[name])
            await pools.world.advance(1)
            assert opened() == ["phi-2"]
        await pools.world.advance(60)
        assert opened() == ["phi-2"]
        assert "are replaced when Workspace phi-2 has its new nodes" in pools.conditions("phi-0")["NodeClaimReady"][2]
        (pool,) = [pool for pool in pools.pools() if pool.labels[labels.WORKSPACE] == "phi-2"]
        pools.join(pools.create(pool))
        pools.world.delete(NodeClaim, claims["phi-2"].name)
        await pools.world.advance(31)
        assert opened() == ["phi-0"]


async def test_a_pool_that_the_api_server_rejects_is_reported(pools: Pools, phi: Workspace) -> None:
    pools.world.deny("patch", NodePool)
    pools.apply(phi)
    async with pools.controller():
        await pools.world.settle()
        assert message(pools).startswith("False NodePoolRefused: NodePool ")
        pools.world.heal()
        await pools.world.advance(120)
        await serve(pools)
        assert pools.columns() == ("True", "True", "True")
