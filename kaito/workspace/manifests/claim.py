"""Builds the claim of one node: a Machine or a NodeClaim with the same meaning.

The field values are those of upstream Kaito (v0.4 for Machine, v0.12 for NodeClaim), so that every provisioner that
works with upstream works here. Names are deterministic: a second request for the same node, after a crash or with a
stale cache, returns 409 AlreadyExists instead of a second GPU.
"""

import hashlib
from collections.abc import Sequence

from kaito.api import Claim, Machine, NodeClaim, Workspace, labels
from kaito.api.karpenter import (
    MachineSpec,
    MachineTemplateRef,
    NodeClaimSpec,
    NodeClassRef,
    Requirement,
    ResourceRequirements,
    Taint,
)
from kaito.models.instance_types import has_gpu
from kaito.runtime.meta import ObjectMeta, Quantity
from kaito.workspace.node_class import AWS_GROUP, AZURE_GROUP, KAITO
from kaito.workspace.ownership import owner_labels
from kaito.workspace.plan import Hardware
from kaito.workspace.settings import NodeApi, WorkspaceSettings
from kaito.workspace.tracing import claim_annotation

_AWS_GPU_COUNT = "karpenter.k8s.aws/instance-gpu-count"
_AZURE_PLACEMENT_SCOPE = "karpenter.azure.com/placement-scope"
"""Requirement that upstream Kaito sets for Azure's Karpenter provider, with the value `regional`: instance types with
GPUs are not offered in every zone."""

EXPIRE_NEVER = "Never"
"""`expireAfter` of a node that runs until its claim is deleted. Karpenter's CRD defaults to 720h, after which Karpenter
deletes the claim although the annotation forbids disruption."""


def claim_name(workspace: Workspace, *, index: int, serial: int) -> str:
    """Returns `ws` and 9 hex digits. The agent pool has the same name, and AKS allows 12 lower-case characters.

    Args:
        workspace: the owner.
        index: the node's place in the Workspace.
        serial: number of the replacement.
    """
    digest = hashlib.sha256(f"{workspace.uid}/{index}/{serial}".encode()).hexdigest()
    return f"ws{digest[:9]}"


def claim_kind(node_api: NodeApi) -> type[Claim] | None:
    """Returns the kind of claim for `--node-api`; None for existing nodes.

    With NodePools, Karpenter creates the claims.
    """
    kinds: dict[NodeApi, type[Claim] | None] = {
        NodeApi.MACHINE: Machine,
        NodeApi.NODECLAIM: NodeClaim,
        NodeApi.KARPENTER: NodeClaim,
        NodeApi.BYO: None,
    }
    return kinds[node_api]


def node_claim(
    workspace: Workspace, hardware: Hardware, settings: WorkspaceSettings, *, index: int, serial: int
) -> Machine | NodeClaim:
    """Returns the claim of node `index` of the Workspace.

    Raises:
        ValueError: `--node-api` is byo or karpenter.
    """
    name = claim_name(workspace, index=index, serial=serial)
    if settings.node_api is NodeApi.MACHINE:
        return _machine(workspace, hardware, settings, name, index)
    if settings.node_api is NodeApi.NODECLAIM:
        return _node_claim(workspace, hardware, settings, name, index)
    raise ValueError(f"no claims are created with --node-api {settings.node_api}")


def image_family(workspace: Workspace, settings: WorkspaceSettings) -> str:
    """Returns the operating system of new nodes: from the annotation, else the controller's default."""
    wanted = workspace.annotations.get(labels.NODE_IMAGE_FAMILY, "").strip().lower()
    return wanted or settings.default_node_image_family


def _image_family(workspace: Workspace, settings: WorkspaceSettings) -> dict[str, str]:
    """Returns the annotation of a Machine; none for Ubuntu, the default of provisioners."""
    family = image_family(workspace, settings)
    return {} if family == "ubuntu" else {labels.NODE_IMAGE_FAMILY: family}


def _offering_requirements(
    hardware: Hardware, index: int, *, default: Sequence[str] = (), region: str = ""
) -> list[Requirement]:
    """Returns the requirements on capacity type and zone; none for what the Workspace leaves to the provisioner.

    Args:
        hardware: the planned nodes.
        index: of the claim.
        default: capacity types if the Workspace names none.
        region: prefix of zones that are only a number; empty for none.
    """
    found: list[Requirement] = []
    if allowed := hardware.capacity_types_of(index) or default:
        found.append(Requirement.is_in(labels.CAPACITY_TYPE, *allowed))
    if hardware.zones:
        zones = [f"{region}-{zone}" if region and zone.isdecimal() else zone for zone in hardware.zones]
        found.append(Requirement.is_in(labels.ZONE, *zones))
    return found


def claim_labels(workspace: Workspace, **identity: str) -> dict[str, str]:
    """Returns the labels of a claim. The controller's keys override the user's."""
    chosen = {
        key: value
        for key, value in workspace.resource.label_selector.match_labels.items()
        if not labels.is_reserved(key)
    }
    return {**chosen, **identity, **owner_labels(workspace), labels.WORKSPACE_UID: workspace.uid}


def claim_taints() -> list[Taint]:
    """Returns the taints of the Workspace's nodes, which its pods tolerate."""
    return [Taint(key=labels.TAINT_SKU, value=labels.TAINT_SKU_GPU, effect="NoSchedule")]


def _resources(hardware: Hardware) -> ResourceRequirements:
    """Returns the size of the disk, and the slices of a node with divided GPUs, which its initialization waits for."""
    slices = {hardware.gpu_resource: Quantity(hardware.gpus_per_node)} if hardware.gpu_profile else {}
    return ResourceRequirements(requests={"storage": hardware.disk, **slices})


def _gpu_profile(hardware: Hardware) -> dict[str, str]:
    """Returns the annotation by which gpu-provisioner divides the GPUs of the node; none for whole GPUs."""
    return {labels.GPU_INSTANCE_PROFILE: hardware.gpu_profile} if hardware.gpu_profile else {}


def _class_resources(hardware: Hardware, node_class: NodeClassRef) -> ResourceRequirements:
    """Returns the resource requests of a claim with that node class.

    Only the gpu-provisioner interprets a `storage` request as the size of the disk. For Karpenter's providers it is a
    resource that the node must advertise. No kubelet advertises it, and the node would never be initialized.
    """
    return _resources(hardware) if node_class.group == KAITO.group else ResourceRequirements()


def _machine(workspace: Workspace, hardware: Hardware, settings: WorkspaceSettings, name: str, index: int) -> Machine:
    return Machine(
        metadata=ObjectMeta(
            name=name,
            labels=claim_labels(workspace, **{labels.PROVISIONER_NAME: labels.PROVISIONER_DEFAULT}),
            annotations={
                labels.CLAIM_INDEX: str(index),
                **_image_family(workspace, settings),
                **_gpu_profile(hardware),
                **claim_annotation(workspace),
            },
        ),
        spec=MachineSpec(
            machine_template_ref=MachineTemplateRef(name=name),
            requirements=[
                Requirement.is_in(labels.INSTANCE_TYPE, hardware.instance_type),
                Requirement.is_in(labels.PROVISIONER_NAME, labels.PROVISIONER_DEFAULT),
                Requirement.is_in(labels.MACHINE_TYPE, "gpu" if has_gpu(hardware.instance_type) else "cpu"),
                Requirement.is_in(labels.ARCH, "amd64"),
                Requirement.is_in(labels.OS, "linux"),
                *_offering_requirements(hardware, index),
            ],
            taints=claim_taints(),
            resources=_resources(hardware),
        ),
    )


def _provider_requirements(
    hardware: Hardware, settings: WorkspaceSettings, node_class: NodeClassRef
) -> list[Requirement]:
    """Returns requirements on labels that only one provider knows; for another one they could not be satisfied."""
    requirements: list[Requirement] = []
    if node_class.group == AZURE_GROUP or (node_class.group == KAITO.group and settings.cloud == "azure"):
        requirements.append(Requirement.is_in(labels.AZURE_SKU_NAME, hardware.instance_type))
    if node_class.group == AZURE_GROUP and not hardware.zones:
        requirements.append(Requirement.is_in(_AZURE_PLACEMENT_SCOPE, "regional"))
    if node_class.group == AWS_GROUP and has_gpu(hardware.instance_type, settings.cloud):
        requirements.append(Requirement(key=_AWS_GPU_COUNT, operator="Gt", values=["0"]))
    return requirements


def node_requirements(
    hardware: Hardware, settings: WorkspaceSettings, node_class: NodeClassRef, *, index: int = 0
) -> list[Requirement]:
    """Returns the requirements of a node: instance type, operating system, those of the provider, and the offering.

    Args:
        hardware: the planned nodes.
        settings: of the controller.
        node_class: of the node.
        index: the node's place in the Workspace.
    """
    # Karpenter takes the cheapest offering that the requirements allow, and the gpu-provisioner on-demand nodes.
    default = () if node_class.group == KAITO.group else ("on-demand",)
    region = settings.region if node_class.group == AZURE_GROUP else ""
    return [
        Requirement.is_in(labels.INSTANCE_TYPE, hardware.instance_type),
        Requirement.is_in(labels.OS, "linux"),
        *_provider_requirements(hardware, settings, node_class),
        *_offering_requirements(hardware, index, default=default, region=region),
    ]


def _node_claim(
    workspace: Workspace, hardware: Hardware, settings: WorkspaceSettings, name: str, index: int
) -> NodeClaim:
    node_class = settings.node_class.reference_for(workspace, settings.cloud)
    requirements = [
        Requirement.is_in(labels.NODEPOOL, labels.NODEPOOL_KAITO),
        *node_requirements(hardware, settings, node_class, index=index),
    ]
    family = image_family(workspace, settings)
    return NodeClaim(
        metadata=ObjectMeta(
            name=name,
            labels=claim_labels(workspace, **{labels.NODEPOOL: labels.NODEPOOL_KAITO}),
            annotations={
                labels.CLAIM_INDEX: str(index),
                labels.DO_NOT_DISRUPT: labels.TRUE,
                # The node class of a Karpenter provider determines the image.
                **({labels.NODE_IMAGE_FAMILY: family} if node_class.group == KAITO.group else {}),
                **_gpu_profile(hardware),
                **claim_annotation(workspace),
            },
        ),
        spec=NodeClaimSpec(
            node_class_ref=node_class,
            requirements=requirements,
            taints=claim_taints(),
            resources=_class_resources(hardware, node_class),
            expire_after=EXPIRE_NEVER,
        ),
    )
