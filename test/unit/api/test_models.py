"""The kinds as data: manifests survive a round trip, versions are one tree, both claims answer the same questions."""

from typing import Any

import pytest
import yaml

from kaito.api import Claim, Machine, NodeClaim, Workspace, WorkspaceV1Alpha1
from kaito.api.karpenter import Requirement, Taint

FOUNDING = """
apiVersion: kaito.sh/v1alpha1
kind: Workspace
metadata: {name: workspace-phi-3-mini}
resource:
  instanceType: "Standard_NC6s_v3"
  labelSelector: {matchLabels: {apps: phi-3}}
inference:
  preset: {name: phi-3-mini-4k-instruct}
---
apiVersion: kaito.sh/v1alpha1
kind: Workspace
metadata: {name: workspace-phi-3-mini-adapter}
resource:
  instanceType: "Standard_NC6s_v3"
  labelSelector: {matchLabels: {apps: phi-3-adapter}}
inference:
  preset: {name: phi-3-mini-128k-instruct}
  adapters:
  - source: {name: phi-3-adapter, image: "registry.example/adapter:0.0.1"}
    strength: "1.0"
---
apiVersion: kaito.sh/v1alpha1
kind: Workspace
metadata: {name: workspace-tuning-phi-3}
resource:
  instanceType: "Standard_NC6s_v3"
  labelSelector: {matchLabels: {app: tuning-phi-3}}
tuning:
  preset: {name: phi-3-mini-128k-instruct}
  method: qlora
  input: {urls: ["https://datasets.example/train.parquet?download=true"]}
  output: {image: "registry.example/image:0.0.1", imagePushSecret: registry-secret}
"""


@pytest.mark.parametrize("manifest", list(yaml.safe_load_all(FOUNDING)), ids=lambda m: m["metadata"]["name"])
def test_a_founding_manifest_survives_a_round_trip(manifest: dict[str, Any]) -> None:
    assert WorkspaceV1Alpha1.model_validate(manifest).to_dict() == manifest


def test_both_versions_are_one_tree() -> None:
    manifest = next(yaml.safe_load_all(FOUNDING))
    old = WorkspaceV1Alpha1.model_validate(manifest)
    new = Workspace.model_validate(manifest)

    assert old.to_dict() | {"apiVersion": "kaito.sh/v1beta1"} == new.to_dict()
    assert set(WorkspaceV1Alpha1.model_fields) == set(Workspace.model_fields)


def test_unknown_fields_are_kept() -> None:
    manifest = next(yaml.safe_load_all(FOUNDING)) | {"apiVersion": "kaito.sh/v1beta1", "futureField": {"a": 1}}
    manifest["inference"] = manifest["inference"] | {"futureToo": True}

    assert Workspace.model_validate(manifest).with_metadata(labels={"a": "b"}).to_dict()["futureField"] == {"a": 1}
    assert Workspace.model_validate(manifest).to_dict()["inference"]["futureToo"] is True


def test_the_preset_name_is_read_wherever_it_stands() -> None:
    names = [Workspace.model_validate(m).preset_name for m in yaml.safe_load_all(FOUNDING)]

    assert names == ["phi-3-mini-4k-instruct", "phi-3-mini-128k-instruct", "phi-3-mini-128k-instruct"]


def claim(kind: type[Claim], **status: Any) -> Claim:
    return kind.model_validate(
        {
            "metadata": {
                "name": "ws0123456789",
                "labels": {"kaito.sh/workspace": "phi", "kaito.sh/workspacenamespace": "team"},
            },
            "spec": {
                "nodeClassRef": {"group": "kaito.sh", "kind": "KaitoNodeClass", "name": "default"},
                "requirements": [
                    {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["Standard_NC6s_v3", "x"]},
                    {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["Standard_NC6s_v3"]},
                    {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]},
                ],
                "taints": [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}],
                "resources": {"requests": {"storage": "87Gi"}},
            },
            "status": status,
        }
    )


KINDS = pytest.mark.parametrize("kind", [Machine, NodeClaim])


@KINDS
def test_instance_type_owner_and_disk_of_a_claim(kind: type[Claim]) -> None:
    requested = claim(kind)

    assert requested.instance_type == "Standard_NC6s_v3"
    assert requested.owner == ("team", "phi")
    assert int(requested.spec.resources.requests["storage"]) == 87 * 2**30
    assert str(requested.spec.taints[0]) == "sku=gpu:NoSchedule"
    assert not requested.namespaced


@KINDS
def test_an_instance_type_left_open_is_no_answer(kind: type[Claim]) -> None:
    requested = claim(kind)
    spec = requested.spec.evolve(requirements=[Requirement.is_in("node.kubernetes.io/instance-type", "a", "b")])

    assert requested.evolve(spec=spec).instance_type == ""
    assert requested.evolve(spec=spec.evolve(requirements=[])).instance_type == ""


@KINDS
def test_ready_is_the_condition_and_the_node_name_where_there_is_none(kind: type[Claim]) -> None:
    assert not claim(kind).is_ready
    assert claim(kind, nodeName="node-1").is_ready
    assert claim(kind, conditions=[{"type": "Ready", "status": "True"}]).is_ready
    assert not claim(kind, nodeName="node-1", conditions=[{"type": "Ready", "status": "False"}]).is_ready


@KINDS
def test_the_blocking_condition_is_the_first_stage_with_a_cause(kind: type[Claim]) -> None:
    launched, registered, initialized = kind.stages
    waiting = {"type": registered, "status": "Unknown", "reason": "AwaitingReconciliation", "message": "waiting"}
    speaking = {"type": initialized, "status": "False", "reason": "NodeNotReady", "message": "kubelet stopped"}
    done = {"type": launched, "status": "True", "reason": launched}

    trouble = claim(kind, conditions=[done, waiting, speaking]).blocking_condition()
    assert trouble is not None
    assert trouble.message == "kubelet stopped"
    only_waiting = claim(kind, conditions=[done, waiting]).blocking_condition()
    assert only_waiting is not None
    assert only_waiting.message == "waiting"
    assert claim(kind, conditions=[done]).blocking_condition() is None


@KINDS
def test_the_providers_spelling_of_ids_is_kept(kind: type[Claim]) -> None:
    status = claim(kind, providerID="azure:///x", imageID="img", capacity={"nvidia.com/gpu": 1}).to_dict()["status"]

    assert status == {"providerID": "azure:///x", "imageID": "img", "capacity": {"nvidia.com/gpu": "1"}}


def test_taints_match_by_key_and_effect() -> None:
    taint = Taint(key="sku", value="gpu", effect="NoSchedule")

    assert taint.matches(Taint(key="sku", effect="NoSchedule"))
    assert not taint.matches(Taint(key="sku", value="gpu", effect="NoExecute"))
    assert str(Taint(key="karpenter.sh/unregistered", effect="NoExecute")) == "karpenter.sh/unregistered:NoExecute"


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (Taint(key="sku", value="cpu", effect="NoSchedule"), True),
        (Taint(key="sku", effect="NoExecute"), False),
        (Taint(key="other", value="gpu", effect="NoSchedule"), False),
    ],
)
def test_a_taint_is_the_same_by_key_and_effect_together(other: Taint, *, same: bool) -> None:
    assert Taint(key="sku", value="gpu", effect="NoSchedule").matches(other) is same


STAGES_OF_DELETION = [
    {"type": "InstanceTerminating", "status": "False", "reason": "BlockedByCloud", "message": "a lock"},
    {"type": "VolumesDetached", "status": "Unknown", "reason": "AwaitingVolumeDetachment", "message": "two volumes"},
    {"type": "Drained", "status": "Unknown", "reason": "Draining", "message": "three pods"},
]


@KINDS
@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (STAGES_OF_DELETION, "a lock"),
        (STAGES_OF_DELETION[1:], "two volumes"),
        (STAGES_OF_DELETION[2:], "three pods"),
        ([STAGES_OF_DELETION[0] | {"status": "True"}, STAGES_OF_DELETION[2]], "three pods"),
        ([STAGES_OF_DELETION[0] | {"message": ""}, STAGES_OF_DELETION[2]], "three pods"),
        ([STAGES_OF_DELETION[0] | {"reason": "AwaitingReconciliation"}, STAGES_OF_DELETION[2]], "three pods"),
        ([], None),
    ],
)
def test_the_blocking_termination_condition_is_the_last_stage_with_a_cause(
    kind: type[Claim], conditions: list[dict[str, str]], message: str | None
) -> None:
    alive = claim(kind, conditions=conditions)
    assert alive.blocking_termination_condition() is None
    trouble = alive.with_metadata(deletion_timestamp="2030-01-01T00:00:00Z").blocking_termination_condition()
    assert (trouble.message if trouble else None) == message


@KINDS
def test_absent_fields_read_as_empty(kind: type[Claim]) -> None:
    required: dict[str, Any] = {
        "nodeClassRef": {"group": "kaito.sh", "kind": "KaitoNodeClass", "name": "default"},
        "requirements": [],
    }
    empty = kind.model_validate({"metadata": {"name": "a"}, "spec": required, "status": {}})

    assert (empty.spec.taints, empty.spec.startup_taints, empty.spec.requirements) == ([], [], [])
    assert empty.spec.resources.requests == {}
    assert (empty.status.node_name, empty.status.provider_id, empty.status.image_id) == ("", "", "")
    assert (empty.status.capacity, empty.status.allocatable, empty.status.conditions) == ({}, {}, [])
    assert (empty.instance_type, empty.owner) == ("", ("", ""))
    bare = kind.model_validate({"metadata": {"name": "a"}, "spec": required})
    assert bare.status == empty.status


def test_absent_fields_of_a_workspace_read_as_empty() -> None:
    bare = Workspace.model_validate(
        {
            "metadata": {"name": "w"},
            "resource": {"labelSelector": {"matchLabels": {"a": "b"}}},
            "inference": {"preset": {"name": "phi-4"}},
        }
    )
    assert (bare.resource.count, bare.resource.instance_type, bare.resource.partition) == (1, "", None)
    assert (bare.resource.preferred_nodes, bare.resource.label_selector.match_expressions) == ([], [])
    assert bare.inference is not None
    assert bare.inference.preset is not None
    assert (bare.inference.config, bare.inference.adapters, bare.inference.template) == ("", [], None)
    assert (bare.inference.preset.access_mode, bare.inference.preset.preset_options.image) == ("public", "")
    assert bare.inference.preset.preset_options.image_pull_secrets == []
    assert bare.inference.preset.preset_options.model_access_secret == ""
    status = bare.status
    assert (status.observed_generation, status.target_node_count, status.state) == (0, 0, None)
    assert (status.conditions, status.worker_nodes, status.claims, status.performance) == ([], [], [], None)
