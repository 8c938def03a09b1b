"""The request for one node: a Machine or a NodeClaim with the same meaning.

Field values are upstream Kaito's (v0.4 for Machine, v0.12 for NodeClaim), so that any provisioner that served it
serves us. Names are deterministic: whoever asks twice for the same node, after a crash or with a stale cache, gets
409 AlreadyExists instead of a second GPU.
"""

import hashlib

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
from kaito.runtime.meta import ObjectMeta
from kaito.workspace.ownership import owner_labels
from kaito.workspace.plan import Hardware
from kaito.workspace.settings import NodeApi, WorkspaceSettings

_KAITO_GROUP = "kaito.sh"
"""API group of the node class that the gpu-provisioner serves."""

_NODE_CLASS = {
    "azure": NodeClassRef(group=_KAITO_GROUP, kind="KaitoNodeClass", name="default"),
    "aws": NodeClassRef(group="karpenter.k8s.aws", kind="EC2NodeClass", name="default"),
    "arc": NodeClassRef(group=_KAITO_GROUP, kind="KaitoNodeClass", name="default"),
}
_AWS_GPU_COUNT = "karpenter.k8s.aws/instance-gpu-count"

_NEVER = "Never"
"""`expireAfter` of a node that runs until its claim is deleted. Karpenter's CRD stores 720h where the field is absent,
and deletes the claim after that; the annotation against disruption does not prevent it."""


def claim_name(workspace: Workspace, *, index: int, serial: int) -> str:
    """`ws` and 9 hex digits: the name is also the agent pool's, and AKS allows 12 lower-case characters.

    `index` is the node's place in the Workspace, `serial` counts the replacements it has seen.
    """
    digest = hashlib.sha256(f"{workspace.uid}/{index}/{serial}".encode()).hexdigest()
    return f"ws{digest[:9]}"


def claim_kind(node_api: NodeApi) -> type[Claim] | None:
    """The kind that `--node-api` names; None when nodes are not asked for."""
    return {NodeApi.MACHINE: Machine, NodeApi.NODECLAIM: NodeClaim, NodeApi.BYO: None}[node_api]


def claim(
    workspace: Workspace, hardware: Hardware, settings: WorkspaceSettings, *, index: int, serial: int
) -> Machine | NodeClaim:
    """The request for node `index` of the Workspace.

    Raises:
        ValueError: the settings ask for no claims at all.
    """
    name = claim_name(workspace, index=index, serial=serial)
    if settings.node_api is NodeApi.MACHINE:
        return _machine(workspace, hardware, settings, name, index)
    if settings.node_api is NodeApi.NODECLAIM:
        return _node_claim(workspace, hardware, settings, name, index)
    raise ValueError("nodes are the user's own: there is nothing to claim")


def image_family(workspace: Workspace, settings: WorkspaceSettings) -> str:
    """The operating system of new nodes: the annotation, else the controller's default."""
    wanted = workspace.annotations.get(labels.NODE_IMAGE_FAMILY, "").strip().lower()
    return wanted or settings.default_node_image_family


def _image_family(workspace: Workspace, settings: WorkspaceSettings) -> dict[str, str]:
    """The annotation for a Machine; none for Ubuntu, which provisioners take anyway."""
    family = image_family(workspace, settings)
    return {} if family == "ubuntu" else {labels.NODE_IMAGE_FAMILY: family}


def _labels(workspace: Workspace, **identity: str) -> dict[str, str]:
    """The user's labels first: they never win over the controllers' own keys."""
    chosen = {
        key: value
        for key, value in workspace.resource.label_selector.match_labels.items()
        if not labels.is_reserved(key)
    }
    return {**chosen, **identity, **owner_labels(workspace), labels.WORKSPACE_UID: workspace.uid}


def _taints() -> list[Taint]:
    return [Taint(key=labels.TAINT_SKU, value=labels.TAINT_SKU_GPU, effect="NoSchedule")]


def _resources(hardware: Hardware) -> ResourceRequirements:
    return ResourceRequirements(requests={"storage": hardware.disk})


def _class_resources(hardware: Hardware, node_class: NodeClassRef) -> ResourceRequirements:
    """What the claim requests of a node of that class.

    Only the gpu-provisioner reads a `storage` request as the size of the disk. Karpenter's providers take it for a
    resource that the node must advertise, which no kubelet does, and never call the node initialized.
    """
    return _resources(hardware) if node_class.group == _KAITO_GROUP else ResourceRequirements()


def _machine(workspace: Workspace, hardware: Hardware, settings: WorkspaceSettings, name: str, index: int) -> Machine:
    return Machine(
        metadata=ObjectMeta(
            name=name,
            labels=_labels(workspace, **{labels.PROVISIONER_NAME: labels.PROVISIONER_DEFAULT}),
            annotations={labels.CLAIM_INDEX: str(index), **_image_family(workspace, settings)},
        ),
        spec=MachineSpec(
            machine_template_ref=MachineTemplateRef(name=name),
            requirements=[
                Requirement.is_in(labels.INSTANCE_TYPE, hardware.instance_type),
                Requirement.is_in(labels.PROVISIONER_NAME, labels.PROVISIONER_DEFAULT),
                Requirement.is_in(labels.MACHINE_TYPE, "gpu" if has_gpu(hardware.instance_type) else "cpu"),
                Requirement.is_in(labels.ARCH, "amd64"),
                Requirement.is_in(labels.OS, "linux"),
            ],
            taints=_taints(),
            resources=_resources(hardware),
        ),
    )


def _node_claim(
    workspace: Workspace, hardware: Hardware, settings: WorkspaceSettings, name: str, index: int
) -> NodeClaim:
    requirements = [
        Requirement.is_in(labels.NODEPOOL, labels.NODEPOOL_KAITO),
        Requirement.is_in(labels.INSTANCE_TYPE, hardware.instance_type),
        Requirement.is_in(labels.OS, "linux"),
    ]
    if settings.cloud == "azure":
        requirements.append(Requirement.is_in(labels.AZURE_SKU_NAME, hardware.instance_type))
    if settings.cloud == "aws" and has_gpu(hardware.instance_type, settings.cloud):
        requirements.append(Requirement(key=_AWS_GPU_COUNT, operator="Gt", values=["0"]))
    node_class = _NODE_CLASS[settings.cloud]
    return NodeClaim(
        metadata=ObjectMeta(
            name=name,
            labels=_labels(workspace, **{labels.NODEPOOL: labels.NODEPOOL_KAITO}),
            annotations={
                labels.CLAIM_INDEX: str(index),
                labels.DO_NOT_DISRUPT: labels.TRUE,
                labels.NODE_IMAGE_FAMILY: image_family(workspace, settings),
            },
        ),
        spec=NodeClaimSpec(
            node_class_ref=node_class,
            requirements=requirements,
            taints=_taints(),
            resources=_class_resources(hardware, node_class),
            expire_after=_NEVER,
        ),
    )
