"""Machines and NodeClaims as rendered: upstream's fields, deterministic names."""

from dataclasses import replace

import pytest

from kaito.api import Machine, NodeClaim, Workspace, labels
from kaito.workspace.manifests.claim import claim_kind, claim_name, node_claim
from kaito.workspace.plan import Hardware
from kaito.workspace.settings import NodeApi, WorkspaceSettings


def test_names_fit_an_agent_pool_and_repeat_themselves(phi: Workspace) -> None:
    name = claim_name(phi, index=0, serial=0)
    assert name == claim_name(phi, index=0, serial=0)
    assert name.startswith("ws")
    assert len(name) == 11
    assert name.isalnum()
    assert name.islower()


def test_names_differ_by_workspace_place_and_replacement(phi: Workspace) -> None:
    other = phi.with_metadata(uid="another")
    names = {
        claim_name(workspace, index=index, serial=serial)
        for workspace in (phi, other)
        for index in (0, 1)
        for serial in (0, 1)
    }
    assert len(names) == 8


def test_a_machine_equals_upstreams(phi: Workspace, hardware: Hardware) -> None:
    machine = node_claim(phi, hardware, WorkspaceSettings(node_api=NodeApi.MACHINE), index=0, serial=0)
    assert isinstance(machine, Machine)
    name = claim_name(phi, index=0, serial=0)
    assert machine.to_dict() == {
        "apiVersion": "karpenter.sh/v1alpha5",
        "kind": "Machine",
        "metadata": {
            "name": name,
            "labels": {
                "apps": "phi-3",
                "karpenter.sh/provisioner-name": "default",
                "kaito.sh/workspace": "workspace-phi-3-mini",
                "kaito.sh/workspacenamespace": "default",
                "kaito.sh/workspace-uid": phi.uid,
            },
            "annotations": {"kaito.sh/claim-index": "0"},
        },
        "spec": {
            "machineTemplateRef": {"name": name},
            "requirements": [
                {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["Standard_NC6s_v3"]},
                {"key": "karpenter.sh/provisioner-name", "operator": "In", "values": ["default"]},
                {"key": "kaito.sh/machine-type", "operator": "In", "values": ["gpu"]},
                {"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]},
                {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]},
            ],
            "taints": [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}],
            "resources": {"requests": {"storage": "87Gi"}},
        },
    }


def test_a_node_claim_equals_upstreams(phi: Workspace, hardware: Hardware) -> None:
    wanted = node_claim(phi, hardware, WorkspaceSettings(node_api=NodeApi.NODECLAIM), index=2, serial=1)
    assert isinstance(wanted, NodeClaim)
    assert wanted.name == claim_name(phi, index=2, serial=1)
    assert wanted.labels["karpenter.sh/nodepool"] == "kaito"
    assert wanted.annotations == {
        "kaito.sh/claim-index": "2",
        "karpenter.sh/do-not-disrupt": "true",
        "kaito.sh/node-image-family": "ubuntu",
    }
    assert wanted.to_dict()["spec"] == {
        "nodeClassRef": {"group": "kaito.sh", "kind": "KaitoNodeClass", "name": "default"},
        "requirements": [
            {"key": "karpenter.sh/nodepool", "operator": "In", "values": ["kaito"]},
            {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["Standard_NC6s_v3"]},
            {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]},
            {"key": "karpenter.azure.com/sku-name", "operator": "In", "values": ["Standard_NC6s_v3"]},
        ],
        "taints": [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}],
        "resources": {"requests": {"storage": "87Gi"}},
        "expireAfter": "Never",
    }


def test_on_aws_the_node_class_is_amazons(phi: Workspace, hardware: Hardware) -> None:
    """A `storage` request would keep Karpenter's nodes from being initialized, and without `expireAfter`
    Karpenter's CRD stores 720h."""
    settings = WorkspaceSettings(node_api=NodeApi.NODECLAIM, cloud="aws")
    spec = node_claim(phi, replace(hardware, instance_type="g5.xlarge"), settings, index=0, serial=0).to_dict()["spec"]
    assert spec["nodeClassRef"] == {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"}
    assert {"key": "karpenter.k8s.aws/instance-gpu-count", "operator": "Gt", "values": ["0"]} in spec["requirements"]
    assert "storage" not in str(spec)
    assert spec["expireAfter"] == "Never"


def test_a_size_without_gpu_is_claimed_as_one(phi: Workspace, hardware: Hardware) -> None:
    """Pod templates may run on CPU sizes."""
    cpu = replace(hardware, instance_type="Standard_D4s_v3", gpus=0)
    machine = node_claim(phi, cpu, WorkspaceSettings(node_api=NodeApi.MACHINE), index=0, serial=0).to_dict()["spec"]
    assert {"key": "kaito.sh/machine-type", "operator": "In", "values": ["cpu"]} in machine["requirements"]

    settings = WorkspaceSettings(node_api=NodeApi.NODECLAIM, cloud="aws")
    on_aws = node_claim(phi, replace(cpu, instance_type="m5.large"), settings, index=0, serial=0).to_dict()["spec"]
    assert "gpu-count" not in str(on_aws["requirements"])


def test_the_annotation_chooses_the_image_family(phi: Workspace, hardware: Hardware) -> None:
    settings = WorkspaceSettings(node_api=NodeApi.NODECLAIM)
    chosen = phi.with_metadata(annotations={labels.NODE_IMAGE_FAMILY: " AzureLinux "})
    assert (
        node_claim(chosen, hardware, settings, index=0, serial=0).annotations[labels.NODE_IMAGE_FAMILY] == "azurelinux"
    )


def test_the_controllers_labels_override_the_users(phi: Workspace, hardware: Hardware) -> None:
    selector = phi.resource.label_selector.evolve(
        match_labels={"karpenter.sh/nodepool": "theirs", labels.WORKSPACE: "other", "apps": "phi-3"}
    )
    greedy = phi.evolve(resource=phi.resource.evolve(label_selector=selector))
    rendered = node_claim(greedy, hardware, WorkspaceSettings(node_api=NodeApi.NODECLAIM), index=0, serial=0)
    assert rendered.labels["karpenter.sh/nodepool"] == "kaito"
    assert rendered.labels[labels.WORKSPACE] == phi.name


def test_with_the_users_own_nodes_there_is_nothing_to_claim(phi: Workspace, hardware: Hardware) -> None:
    assert claim_kind(NodeApi.BYO) is None
    with pytest.raises(ValueError, match="no claims are created with --node-api byo"):
        node_claim(phi, hardware, WorkspaceSettings(node_api=NodeApi.BYO), index=0, serial=0)
