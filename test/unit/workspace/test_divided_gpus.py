"""Copies that share a new node, each on a MIG slice of its GPUs (`resource.partition` with an instance type)."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kaito.api import Workspace, labels
from kaito.models.copies import InvalidNodeCount, wanted_copies
from kaito.prices.book import PriceBook
from kaito.runtime.kinds import Node, Pod, StatefulSet
from kaito.runtime.meta import Quantity
from kaito.runtime.testing import builders
from kaito.runtime.webhook import Admission, Webhook
from kaito.workspace.admission import workspace_webhook
from kaito.workspace.manifests.claim import node_claim
from kaito.workspace.manifests.inference import inference_stateful_set
from kaito.workspace.node_class import NodeClassSettings
from kaito.workspace.plan import Hardware, Plan
from kaito.workspace.preflight import run_checks, validate_workspace
from kaito.workspace.preflight.offline import ManifestReader
from kaito.workspace.settings import NodeApi, WorkspaceSettings

if TYPE_CHECKING:
    from test.unit.workspace.conftest import Cluster

NAME = "workspace-phi-3-mini"
SIZE = "Standard_NC24ads_A100_v4"
MIXED = "nvidia.com/mig-1g.10gb"
SLICES = Hardware(
    copies=7,
    copies_per_node=7,
    instance_type=SIZE,
    capacity_types=("spot", "on-demand"),
    gpus=1,
    disk=Quantity("87Gi"),
)


def with_slices(
    workspace: Workspace,
    copies: int = 7,
    *,
    profile: str = "1g.10gb",
    preset: str = "qwen3.5-2b",
    annotations: dict[str, str] | None = None,
    **resource: Any,
) -> Workspace:
    document = workspace.to_dict()
    document["metadata"]["annotations"] = annotations or {}
    partition = {"mode": "mig", "profile": profile}
    document["resource"] |= {"instanceType": SIZE, "count": copies, "partition": partition, **resource}
    document["inference"] = {"preset": {"name": preset}}
    return Workspace.model_validate(document)


async def plan_of(workspace: Workspace, settings: WorkspaceSettings) -> Plan:
    checked = await run_checks(workspace, settings, ManifestReader())
    assert checked.errors == []
    assert checked.plan is not None
    return checked.plan


def problems(workspace: Workspace, settings: WorkspaceSettings) -> list[str]:
    return [str(found) for found in validate_workspace(workspace, None, settings) if found.severity == "error"]


@pytest.mark.parametrize(("copies", "nodes"), [(0, 0), (1, 1), (7, 1), (8, 2), (14, 2), (15, 3)])
def test_a_started_node_is_a_whole_node(copies: int, nodes: int) -> None:
    hardware = replace(SLICES, copies=copies)
    assert (hardware.count, hardware.workers, hardware.gpus_per_node) == (nodes, 0, 7)


def test_on_demand_copies_have_a_whole_on_demand_node() -> None:
    found = [replace(SLICES, copies=21, on_demand_copies=8).capacity_types_of(index) for index in range(3)]
    assert found == [("on-demand",), ("on-demand",), ("spot", "on-demand")]


def test_copies_on_several_nodes_are_counted_as_before() -> None:
    group = replace(SLICES, copies=3, copies_per_node=1, nodes_per_copy=2, on_demand_copies=1)
    assert (group.count, group.workers, group.gpus_per_node) == (6, 3, 1)
    assert [group.capacity_types_of(index) for index in (1, 2)] == [("on-demand",), ("spot", "on-demand")]


def test_the_annotation_with_a_number_of_nodes_fills_them(phi: Workspace) -> None:
    given = with_slices(phi, annotations={labels.NODE_COUNT_OVERRIDE: "2"})
    assert wanted_copies(given, copies_per_node=7) == 14
    many = with_slices(phi, annotations={labels.NODE_COUNT_OVERRIDE: "19"})
    with pytest.raises(
        InvalidNodeCount, match="is 19, and 7 copies on each node are more than 128 copies: use at most 18"
    ):
        wanted_copies(many, copies_per_node=7)


@pytest.mark.parametrize(("copies", "nodes"), [(1, 1), (7, 1), (8, 2)])
async def test_seven_copies_are_planned_on_one_node(
    phi: Workspace, settings: WorkspaceSettings, copies: int, nodes: int
) -> None:
    plan = await plan_of(with_slices(phi, copies), settings)
    assert (plan.hardware.copies, plan.hardware.count, plan.hardware.gpu_profile) == (copies, nodes, "MIG1g")
    assert plan.explanation == "each copy uses a slice of 9.5 GiB, of which a node has 7"


@pytest.mark.parametrize(("strategy", "resource"), [("single", labels.NVIDIA_GPU), ("mixed", MIXED)])
async def test_a_claim_divides_the_gpus_and_a_pod_requests_one_slice(
    phi: Workspace, settings: WorkspaceSettings, strategy: str, resource: str
) -> None:
    settings = settings.model_copy(update={"mig_strategy": strategy})
    given = with_slices(phi)
    plan = await plan_of(given, settings)
    claim = node_claim(given, plan.hardware, settings, index=0, serial=0)
    assert claim.annotations[labels.GPU_INSTANCE_PROFILE] == "MIG1g"
    requests = {name: int(amount) for name, amount in claim.spec.resources.requests.items() if name != "storage"}
    assert requests == {resource: 7}

    template = inference_stateful_set(given, plan, settings).spec.template.to_dict()["spec"]
    (container,) = template["containers"]
    assert container["resources"]["limits"] == {resource: "1"}
    assert container["resources"]["requests"][resource] == "1"
    assert "podAntiAffinity" not in template["affinity"]
    (preferred,) = template["affinity"]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert preferred["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname"
    assert [each["whenUnsatisfiable"] for each in template["topologySpreadConstraints"]] == ["DoNotSchedule"]


async def test_whole_gpus_have_neither_annotation_nor_slices(phi: Workspace, settings: WorkspaceSettings) -> None:
    plan = await plan_of(phi, settings)
    claim = node_claim(phi, plan.hardware, settings, index=0, serial=0)
    assert labels.GPU_INSTANCE_PROFILE not in claim.annotations
    assert set(claim.spec.resources.requests) == {"storage"}
    template = inference_stateful_set(phi, plan, settings).spec.template.to_dict()["spec"]
    assert "topologySpreadConstraints" not in template
    assert set(template["affinity"]) == {"nodeAffinity"}


NEEDS_PROVISIONER = (
    "resource.partition: needs gpu-provisioner, because Karpenter's providers do not divide the GPUs of new nodes: "
    "remove it, or run this controller with --node-api machine, or with nodeclaim and the node class of gpu-provisioner"
)
AZURE_CLASS = NodeClassSettings(karpenter_node_class_group="karpenter.azure.com")


@pytest.mark.parametrize(
    ("settings", "annotations"),
    [
        (WorkspaceSettings(node_api=NodeApi.KARPENTER, node_class=AZURE_CLASS), {}),
        (WorkspaceSettings(node_api=NodeApi.NODECLAIM, node_class=AZURE_CLASS), {}),
        (
            WorkspaceSettings(node_api=NodeApi.NODECLAIM),
            {labels.NODE_CLASS: "karpenter.azure.com/AKSNodeClass/gpu"},
        ),
    ],
    ids=["NodePools", "node class of the installation", "node class of the Workspace"],
)
def test_karpenter_does_not_divide_gpus(
    phi: Workspace, settings: WorkspaceSettings, annotations: dict[str, str]
) -> None:
    assert NEEDS_PROVISIONER in problems(with_slices(phi, annotations=annotations), settings)


def test_other_clouds_do_not_divide_gpus(phi: Workspace) -> None:
    settings = WorkspaceSettings(node_api=NodeApi.NODECLAIM, cloud="aws")
    found = problems(with_slices(phi, instanceType="p4de.24xlarge"), settings)
    assert "resource.partition: divides the GPUs of new nodes on azure only, and the cloud is aws: remove it" in found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"profile": "1g.5gb"},
            (
                "resource.partition.profile: is '1g.5gb', which the GPUs of Standard_NC24ads_A100_v4 do not have: use "
                "one of 1g.10gb, 2g.20gb, 3g.40gb, 4g.40gb, 7g.80gb"
            ),
        ),
        (
            {"instanceType": "Standard_NC6s_v3"},
            (
                "resource.partition.profile: is '1g.10gb', but the GPUs of Standard_NC6s_v3 cannot be divided: remove "
                "resource.partition, or choose an instance type with A100, H100 or H200"
            ),
        ),
        (
            {"preset": "phi-3-mini-4k-instruct"},
            (
                "resource.partition.profile: Standard_NC24ads_A100_v4 1g.10gb (7 slices of NVIDIA A100, 9.5 GiB each) "
                "is too small for phi-3-mini-4k-instruct: it takes about 10.7 GiB, 8.7 GiB are usable: choose a larger "
                "profile, or remove resource.partition"
            ),
        ),
        (
            {"partition": {"mode": "accelerator", "count": 1}},
            (
                "resource.partition: with mode accelerator needs existing nodes (--node-api byo), because a copy uses "
                "all GPUs of a new node: remove it"
            ),
        ),
    ],
)
def test_parts_that_no_new_node_can_have_are_refused(
    phi: Workspace, settings: WorkspaceSettings, changes: dict[str, Any], message: str
) -> None:
    assert problems(with_slices(phi, **changes), settings) == [message]


async def test_an_alternative_without_the_profile_is_skipped(phi: Workspace, settings: WorkspaceSettings) -> None:
    listed = ["Standard_NC40ads_H100_v5", SIZE, "Standard_ND96isr_H100_v5"]
    given = with_slices(phi, instanceType="", instanceTypes=listed)
    assert problems(given, settings) == []
    plan = await plan_of(given, settings)
    assert (plan.hardware.instance_type, plan.hardware.count) == (SIZE, 1)
    assert plan.choice is not None
    (skipped, first, last) = plan.choice.candidates
    assert "is '1g.10gb', which the GPUs of Standard_NC40ads_H100_v5 do not have" in skipped.problem
    assert (first.nodes, last.nodes) == (1, 1)


async def test_the_requests_of_all_copies_must_fit_on_their_node(phi: Workspace, settings: WorkspaceSettings) -> None:
    def given(copies: int) -> Workspace:
        document = with_slices(phi, copies).to_dict()
        document["inference"]["preset"]["podOptions"] = {"resources": {"requests": {"cpu": "8"}}}
        return Workspace.model_validate(document)

    assert (await run_checks(given(3), settings, ManifestReader())).errors == []
    (found,) = (await run_checks(given(4), settings, ManifestReader())).errors
    assert found.message == (
        "requests 8 cpu, 4 copies share a node of Standard_NC24ads_A100_v4, which has 24: request less, or choose a "
        "larger instance type"
    )


async def test_admission_warns_of_what_the_controller_refuses(phi: Workspace, settings: WorkspaceSettings) -> None:
    document = with_slices(phi, 7).to_dict()
    document["inference"]["preset"]["podOptions"] = {"resources": {"requests": {"cpu": "8"}}}
    new = Workspace.model_validate(document)
    admission = await reviewed(Admission("CREATE", new, None), workspace_webhook(settings, PriceBook()))
    assert admission.problems == []
    assert admission.warnings[-1] == (
        "inference.preset.podOptions.resources: requests 8 cpu, 7 copies share a node of Standard_NC24ads_A100_v4, "
        "which has 24: request less, or choose a larger instance type; no node is created until it is corrected"
    )


async def test_the_disk_has_the_weights_of_every_slice(phi: Workspace, settings: WorkspaceSettings) -> None:
    whole = with_slices(phi, 1).to_dict()
    del whole["resource"]["partition"]
    plans = [
        await plan_of(each, settings)
        for each in (
            Workspace.model_validate(whole),
            with_slices(phi, 1),
            with_slices(phi, 7, instanceType="Standard_ND96amsr_A100_v4"),
        )
    ]
    assert [str(plan.hardware.disk) for plan in plans] == ["84Gi", "109Gi", "317Gi"]


@pytest.mark.parametrize(("requested", "disk"), [("10Gi", "109Gi"), ("40Gi", "330Gi")])
async def test_the_disk_has_what_the_pods_of_a_node_request(
    phi: Workspace, settings: WorkspaceSettings, requested: str, disk: str
) -> None:
    document = with_slices(phi, 1).to_dict()
    document["inference"]["preset"]["podOptions"] = {"resources": {"limits": {"ephemeral-storage": requested}}}
    assert str((await plan_of(Workspace.model_validate(document), settings)).hardware.disk) == disk


async def test_a_request_for_more_disk_than_any_node_has_is_refused(
    phi: Workspace, settings: WorkspaceSettings
) -> None:
    document = with_slices(phi, 1).to_dict()
    document["inference"]["preset"]["podOptions"] = {"resources": {"requests": {"ephemeral-storage": "10Ti"}}}
    (found,) = (await run_checks(Workspace.model_validate(document), settings, ManifestReader())).errors
    assert found.field == "inference.preset.podOptions.resources"
    assert found.message == (
        "requests 10Ti of ephemeral-storage, and 7 copies share a node, which has at most 32Ti: use a volume for more"
    )


async def reviewed(admission: Admission[Workspace], webhook: Webhook[Workspace]) -> Admission[Workspace]:
    assert webhook.validate is not None
    result = webhook.validate(admission)
    if result is not None:
        await result
    return admission


async def test_admission_counts_nodes_and_price_by_the_copies_of_a_node(phi: Workspace) -> None:
    webhook = workspace_webhook(WorkspaceSettings(region="eastus"), PriceBook())
    seven, eight = [
        (await reviewed(Admission("CREATE", with_slices(phi, copies)), webhook)).warnings for copies in (7, 8)
    ]
    assert seven[0] == (
        "resource.count: is 7: 1 node is used for 7 copies of qwen3.5-2b: each copy uses a slice of 9.5 GiB, of which "
        "a node has 7"
    )
    assert seven[1].startswith("resource: the plan is 1 node of Standard_NC24ads_A100_v4: 3.67 USD per hour")
    limited = [
        (await reviewed(Admission("CREATE", with_slices(phi, copies, maxHourlyCost="4")), webhook)).problems
        for copies in (7, 8)
    ]
    assert [[problem.field for problem in found] for found in limited] == [[], ["resource.maxHourlyCost"]]
    assert "2 nodes are used for 8 copies" in eight[0]
    assert eight[1].startswith("resource: the plan is 2 nodes of Standard_NC24ads_A100_v4: 7.35 USD per hour")


def scale(cluster: "Cluster", replicas: int) -> None:
    cluster.world.patch(Workspace, NAME, {"spec": {"replicas": replicas}})


def add_pods(cluster: "Cluster", places: list[str]) -> None:
    owner = cluster.world.get(StatefulSet, NAME)
    for ordinal, node in enumerate(places):
        own = {labels.WORKSPACE: NAME}
        cluster.world.put(builders.pod(f"{NAME}-{ordinal}", labels=own, node_name=node, owner=owner))


async def test_copies_share_nodes_and_a_node_without_pods_is_given_back(cluster: "Cluster", phi: Workspace) -> None:
    """The node that is given back is the empty one, although the other one has the higher index."""
    cluster.apply(with_slices(phi, 14))
    manager = cluster.controller()
    async with manager:
        await cluster.world.settle()
        assert len(cluster.claims()) == 2
        for claim in cluster.claims():
            cluster.join(claim, gpus="1")
        await cluster.world.settle()
        assert "advertises 1 of 7 nvidia.com/gpu" in cluster.conditions()["ResourceReady"][2]
        assert cluster.world.list(StatefulSet) == []
        for claim in cluster.claims():
            patch = {"status": {"capacity": {labels.NVIDIA_GPU: "7"}, "allocatable": {labels.NVIDIA_GPU: "7"}}}
            cluster.world.patch(Node, f"node-{claim.name}", patch, subresource="status")
        await cluster.world.settle()
        cluster.serve()
        await cluster.world.settle()
        assert cluster.columns() == ("True", "True", "True")
        status = cluster.workspace().status
        assert (status.replicas, status.target_node_count) == (14, 2)

        by_index = sorted(cluster.claims(), key=lambda claim: claim.annotations[labels.CLAIM_INDEX])
        first, last = [f"node-{claim.name}" for claim in by_index]
        add_pods(cluster, [last] * 7 + [first] * 7)
        scale(cluster, 7)
        await cluster.world.settle()
        assert cluster.world.get(StatefulSet, NAME).spec.replicas == 7
        cluster.serve()
        for ordinal in range(13, 7, -1):
            await manager.client.delete(cluster.world.get(Pod, f"{NAME}-{ordinal}"), grace_seconds=0)
        await cluster.world.advance(120)
        assert len(cluster.claims()) == 2, "a pod finishes its requests"
        await manager.client.delete(cluster.world.get(Pod, f"{NAME}-7"), grace_seconds=0)
        await cluster.world.settle()
        assert [claim.name for claim in cluster.claims()] == [by_index[1].name]
        assert cluster.columns() == ("True", "True", "True")
        assert cluster.workspace().status.target_node_count == 1


async def test_a_copy_beyond_a_node_buys_the_next_one(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(with_slices(phi, 1))
    async with cluster.controller():
        await cluster.world.settle()
        cluster.join(cluster.claim(), gpus="7")
        await cluster.world.settle()
        cluster.serve()
        await cluster.world.settle()
        scale(cluster, 7)
        await cluster.world.settle()
        assert len(cluster.claims()) == 1
        assert cluster.world.get(StatefulSet, NAME).spec.replicas == 7
        scale(cluster, 8)
        await cluster.world.settle()
        assert len(cluster.claims()) == 2
