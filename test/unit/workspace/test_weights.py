"""Weights reach the pods: volumes, init containers, detection of image volumes, and a source that does not change."""

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import AsyncMock

import pytest

from kaito.api import Workspace, labels
from kaito.models.weights import Weights
from kaito.runtime.errors import Forbidden, NotFound
from kaito.runtime.kinds import ConfigMap, Job, Node, PersistentVolumeClaim, StatefulSet
from kaito.runtime.testing import builders
from kaito.workspace.image_volumes import BY_DEFAULT, IF_ENABLED, Requirement, node_problem, server_problem
from kaito.workspace.manifests.inference import inference_stateful_set
from kaito.workspace.plan import ModelContainer, Plan
from kaito.workspace.preflight import run_checks, validate_workspace
from kaito.workspace.preflight.live import VERSION_SECONDS, ClusterFacts
from kaito.workspace.preflight.offline import ManifestReader
from kaito.workspace.settings import NodeApi, WorkspaceSettings
from test.unit.workspace.input_cases import config, tuned

if TYPE_CHECKING:
    from kaito.runtime import Api
    from test.unit.workspace.conftest import Cluster

NAME = "workspace-phi-3-mini"
ARTIFACT = "r.example/models/phi:1"
UPSTREAM = "mcr.microsoft.com/aks/kaito/kaito-phi-3-mini-4k-instruct:0.2.0"
MODERN = {"kubeletVersion": "v1.35.1", "containerRuntimeVersion": "containerd://2.1.4"}


@pytest.fixture
def node_api() -> NodeApi:
    return NodeApi.MACHINE


# -- rendered pods --


def pod(phi: Workspace, plan: Plan, container: ModelContainer, **weights: Any) -> dict[str, Any]:
    source = replace(container, weights=Weights(**weights), pull_secrets=("pull",), tools_image="tools:1")
    stateful_set = inference_stateful_set(phi, replace(plan, container=source), WorkspaceSettings())
    spec: dict[str, Any] = stateful_set.to_dict()["spec"]["template"]["spec"]
    return spec


def volumes(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {volume.pop("name"): volume for volume in spec["volumes"]}


def mounts(container: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    return {m["mountPath"]: (m["name"], m.get("readOnly", False)) for m in container["volumeMounts"]}


def test_an_image_volume_is_mounted(phi: Workspace, plan: Plan, model_container: ModelContainer) -> None:
    spec = pod(phi, plan, model_container, method="ImageVolume", artifact=ARTIFACT)
    assert volumes(spec)["weights"] == {"image": {"reference": ARTIFACT, "pullPolicy": "IfNotPresent"}}
    assert mounts(spec["containers"][0])["/workspace/weights"] == ("weights", True)
    assert "initContainers" not in spec
    assert spec["imagePullSecrets"] == [{"name": "pull"}]


def test_an_artifact_is_pulled_with_the_secrets_of_the_pod(
    phi: Workspace, plan: Plan, model_container: ModelContainer
) -> None:
    spec = pod(phi, plan, model_container, method="Pull", artifact=ARTIFACT)
    (puller,) = spec["initContainers"]
    assert (puller["name"], puller["image"]) == ("weights", "tools:1")
    assert puller["command"] == [
        "python3",
        "/workspace/oci/pull_model.py",
        ARTIFACT,
        "/workspace/weights",
        "--progress-port=5000",
        "--docker-config",
        "/mnt/registry/docker-config-weights/pull.json",
    ]
    assert mounts(puller)["/workspace/weights"] == ("weights", False)
    assert mounts(puller)["/mnt/registry/docker-config-weights"] == ("docker-config-weights", True)
    assert mounts(spec["containers"][0])["/workspace/weights"] == ("weights", True)
    assert volumes(spec)["weights"] == {"emptyDir": {}}


def test_a_cache_is_filled_by_the_init_container_and_read_by_the_server(
    phi: Workspace, plan: Plan, model_container: ModelContainer
) -> None:
    spec = pod(phi, plan, model_container, method="NodeCache", artifact=ARTIFACT, cache_claim="models")
    (puller,) = spec["initContainers"]
    assert puller["command"][2:4] == [ARTIFACT, "/workspace/weights"]
    assert puller["command"][5:7] == ["--cache", "/workspace/cache"]
    assert mounts(puller)["/workspace/cache"] == ("weights-cache", False)
    assert mounts(spec["containers"][0])["/workspace/cache"] == ("weights-cache", True)
    assert volumes(spec)["weights-cache"] == {"persistentVolumeClaim": {"claimName": "models"}}


def test_a_directory_of_the_node_is_made_writable_first(
    phi: Workspace, plan: Plan, model_container: ModelContainer
) -> None:
    spec = pod(phi, plan, model_container, method="NodeCache", artifact=ARTIFACT, cache_directory="/var/cache/kaito")
    opener, puller = spec["initContainers"]
    assert puller["name"] == "weights"
    assert opener["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsUser": 0,
        "runAsGroup": 0,
        "runAsNonRoot": False,
    }
    assert mounts(opener)["/workspace/cache"] == ("weights-cache", False)
    expected = {"hostPath": {"path": "/var/cache/kaito", "type": "DirectoryOrCreate"}}
    assert volumes(spec)["weights-cache"] == expected


@pytest.mark.parametrize(
    ("weights", "volume"),
    [
        ({"method": "Download"}, {"emptyDir": {}}),
        ({"method": "NodeCache", "cache_claim": "models"}, {"persistentVolumeClaim": {"claimName": "models"}}),
    ],
)
def test_downloads_go_to_the_volume(
    phi: Workspace, plan: Plan, model_container: ModelContainer, weights: dict[str, Any], volume: dict[str, Any]
) -> None:
    spec = pod(phi, plan, model_container, **weights)
    assert volumes(spec)["weights"] == volume
    (server,) = spec["containers"]
    assert mounts(server)["/workspace/weights"] == ("weights", False)
    assert {"name": "HF_HUB_CACHE", "value": "/workspace/weights"} in server["env"]
    assert "initContainers" not in spec


def test_a_private_image_needs_nothing(phi: Workspace, plan: Plan, model_container: ModelContainer) -> None:
    spec = pod(phi, plan, model_container, method="Image")
    assert set(volumes(spec)) == {"dshm", "tmp"}


# -- detection --


@pytest.mark.parametrize(
    ("version", "requirement", "problem"),
    [
        ("v1.35.4", BY_DEFAULT, ""),
        ("v1.36.0-rc.1+k3s1", BY_DEFAULT, ""),
        ("v1.34.9", BY_DEFAULT, "the API server is Kubernetes v1.34.9, at least 1.35 is needed"),
        ("v1.34.9", IF_ENABLED, ""),
        ("v1.30.0", IF_ENABLED, "the API server is Kubernetes v1.30.0, at least 1.31 is needed"),
        ("", BY_DEFAULT, "the API server is Kubernetes of unknown version, at least 1.35 is needed"),
    ],
)
def test_the_version_of_the_api_server_decides(version: str, requirement: Requirement, problem: str) -> None:
    assert server_problem({"gitVersion": version}, requirement) == problem


@pytest.mark.parametrize(
    ("kubelet", "runtime", "problem"),
    [
        ("v1.35.0", "containerd://2.1.0", ""),
        ("v1.35.0", "containerd://2.2.1-k3s1", ""),
        ("v1.35.0", "cri-o://1.33.2", ""),
        ("v1.35.0", "cri-o://1.32.2", "has cri-o://1.32.2, at least containerd 2.1 or cri-o 1.33 is needed"),
        ("v1.35.0", "containerd://2.0.5", "has containerd://2.0.5, at least containerd 2.1"),
        ("v1.35.0", "docker://29.0", "has docker://29.0, at least containerd 2.1"),
        ("v1.35.0", "", "has an unknown container runtime"),
        ("v1.34.3", "containerd://2.1.0", "has kubelet v1.34.3, at least 1.35 is needed"),
        ("", "containerd://2.1.0", "has kubelet of unknown version"),
    ],
)
def test_kubelet_and_container_runtime_of_every_node_decide(kubelet: str, runtime: str, problem: str) -> None:
    def node(name: str, kubelet: str, runtime: str) -> Node:
        info = {"kubeletVersion": kubelet, "containerRuntimeVersion": runtime}
        return Node.model_validate({"metadata": {"name": name}, "status": {"nodeInfo": info}})

    found = node_problem([node("b", kubelet, runtime), node("a", "v1.35.0", "containerd://2.1.0")], BY_DEFAULT)
    assert found.startswith("node b " + problem if problem else "")
    assert bool(found) is bool(problem)


# -- the controller --


def with_weights(phi: Workspace, **weights: str) -> Workspace:
    return phi.evolve(inference={"preset": {"name": "phi-3-mini-4k-instruct", "presetOptions": {"weights": weights}}})


def join(cluster: "Cluster", **info: str) -> None:
    """Joins the nodes of all claims with these versions."""
    for claim in cluster.claims():
        node = cluster.join(claim, ready=False)
        cluster.world.patch(Node, node.name, {"status": {"nodeInfo": info}}, subresource="status")
        cluster.join(claim)
        cluster.world.patch(Node, node.name, {"status": {"nodeInfo": info}}, subresource="status")


def record(cluster: "Cluster") -> dict[str, str]:
    found: dict[str, str] = json.loads(cluster.world.get(StatefulSet, NAME).annotations[labels.WEIGHTS])
    return found


@pytest.mark.parametrize(
    ("info", "method"),
    [(MODERN, "ImageVolume"), ({**MODERN, "containerRuntimeVersion": "containerd://1.7.2"}, "Pull"), ({}, "Pull")],
)
async def test_an_artifact_is_mounted_where_all_nodes_support_it(
    cluster: "Cluster", phi: Workspace, info: dict[str, str], method: str
) -> None:
    cluster.apply(with_weights(phi, artifact=ARTIFACT))
    async with cluster.controller():
        await cluster.world.settle()
        join(cluster, **info)
        await cluster.world.advance(30)
        assert record(cluster)["method"] == method
        assert record(cluster)["artifact"] == ARTIFACT
        found = cluster.world.get(StatefulSet, NAME).to_dict()["spec"]["template"]["spec"]
        assert ("image" in volumes(found)["weights"]) is (method == "ImageVolume")


async def test_a_running_workload_keeps_its_source(cluster: "Cluster", phi: Workspace) -> None:
    """Neither upgraded nodes nor changed settings of the installation replace its pods."""
    cluster.apply(with_weights(phi, artifact=ARTIFACT))
    async with cluster.controller():
        await cluster.world.settle()
        join(cluster, **{**MODERN, "containerRuntimeVersion": "containerd://1.7.2"})
        await cluster.world.advance(30)
        cluster.serve()
        await cluster.world.settle()
        before = cluster.world.get(StatefulSet, NAME).metadata.generation
        join(cluster, **MODERN)
        await cluster.world.advance(120)
        assert cluster.world.get(StatefulSet, NAME).metadata.generation == before
    changed = WorkspaceSettings(weights_source="ImageVolume", model_registry="other.example/models")
    async with cluster.controller(changed):
        await cluster.world.advance(120)
        assert cluster.world.get(StatefulSet, NAME).metadata.generation == before
        assert record(cluster)["method"] == "Pull"


async def test_a_changed_field_selects_the_source_again(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(with_weights(phi, artifact=ARTIFACT))
    async with cluster.controller():
        await cluster.world.settle()
        join(cluster, **MODERN)
        await cluster.world.advance(30)
        assert record(cluster)["method"] == "ImageVolume"
        changed = {"weights": {"source": "Download", "artifact": None}}
        cluster.world.patch(Workspace, NAME, {"inference": {"preset": {"presetOptions": changed}}})
        await cluster.world.advance(30)
        assert record(cluster)["method"] == "Download"
        found = cluster.world.get(StatefulSet, NAME).to_dict()["spec"]["template"]["spec"]
        assert volumes(found)["weights"] == {"emptyDir": {}}


async def test_a_catalog_artifact_is_pulled_and_a_damaged_record_is_replaced(
    cluster: "Cluster", phi: Workspace
) -> None:
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        assert (record(cluster)["method"], record(cluster)["artifact"]) == ("Pull", UPSTREAM)
        for damaged in ("{", '"Pull"', '{"method": "Teleport"}'):
            annotations = {labels.WEIGHTS: damaged}
            cluster.world.patch(StatefulSet, NAME, {"metadata": {"annotations": annotations}})
            cluster.world.patch(Workspace, NAME, {"metadata": {"annotations": {"touch": damaged}}})
            await cluster.world.advance(120)
            assert record(cluster)["method"] == "Pull"


async def test_a_tuning_job_keeps_its_source(cluster: "Cluster", phi: Workspace) -> None:
    part = tuned(output={"volumeSource": {"persistentVolumeClaim": {"claimName": "out"}}})
    claim = PersistentVolumeClaim.model_validate({"metadata": {"name": "out", "namespace": "default"}})
    cluster.world.put(claim)
    cluster.apply(Workspace.model_validate({**phi.to_dict(), "inference": None, **part}))
    async with cluster.controller():
        await cluster.world.settle()
        for each in cluster.claims():
            cluster.join(each)
        await cluster.world.advance(30)
        job = cluster.world.get(Job, NAME)
        assert json.loads(job.annotations[labels.WEIGHTS])["method"] == "Pull"
        assert [init.name for init in job.spec.template.spec.init_containers] == ["weights"]
        assert "--model=/workspace/weights" in job.spec.template.spec.containers[0].command
    async with cluster.controller(WorkspaceSettings(weights_source="Download")):
        await cluster.world.advance(120)
        assert cluster.world.get(Job, NAME).uid == job.uid


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"source": "ImageVolume", "artifact": ARTIFACT}, "is ImageVolume, but node old has containerd://1.6.2"),
        ({"source": "NodeCache", "cacheClaim": "absent"}, "PersistentVolumeClaim 'absent' does not exist"),
    ],
)
async def test_a_source_that_cannot_work_is_reported_before_pods_exist(
    cluster: "Cluster", phi: Workspace, weights: dict[str, str], words: str
) -> None:
    settings = WorkspaceSettings(node_api=NodeApi.BYO)
    node = builders.node("old", labels={"apps": "phi-3", labels.INSTANCE_TYPE: "Standard_NC24ads_A100_v4"})
    cluster.world.put(node)
    info = {**MODERN, "containerRuntimeVersion": "containerd://1.6.2"}
    cluster.world.patch(Node, "old", {"status": {"nodeInfo": info}}, subresource="status")
    workspace = with_weights(phi, **weights)
    cluster.apply(workspace.evolve(resource=workspace.resource.evolve(instance_type="")))
    async with cluster.controller(settings):
        await cluster.world.advance(30)
        status, _, message = cluster.conditions()["ResourceReady"]
        assert status == "False"
        assert words in message
        assert not cluster.world.list(StatefulSet)


@pytest.mark.parametrize(
    ("preset", "field", "words"),
    [
        (
            {"presetOptions": {"weights": {"source": "Download", "artifact": ARTIFACT}}},
            "artifact",
            "has no effect with",
        ),
        ({"presetOptions": {"weights": {"cacheClaim": "models"}}}, "cacheClaim", "belongs to source NodeCache"),
        ({"presetOptions": {"weights": {"artifact": "Not An Image"}}}, "artifact", "'Not An Image'"),
        (
            {"presetOptions": {"weights": {"source": "NodeCache", "cacheClaim": "A b"}}},
            "cacheClaim",
            "cannot be the name",
        ),
        ({"presetOptions": {"weights": {"source": "NodeCache"}}}, "source", "there is no cache"),
        ({"presetOptions": {"weights": {"source": "ImageVolume"}}}, "artifact", "--model-registry"),
        (
            {"accessMode": "private", "presetOptions": {"image": "p.example/a:1", "weights": {"source": "Pull"}}},
            "",
            "have no effect with accessMode private",
        ),
    ],
)
def test_contradictions_are_rejected_at_admission(
    phi: Workspace, preset: dict[str, Any], field: str, words: str
) -> None:
    workspace = phi.evolve(inference={"preset": {"name": "phi-3-mini-4k-instruct", **preset}})
    found = [v for v in validate_workspace(workspace, None, WorkspaceSettings()) if v.severity == "error"]
    (violation,) = found
    assert violation.field == ".".join(filter(None, ("inference.preset.presetOptions.weights", field)))
    assert words in violation.message


@pytest.mark.parametrize(
    ("preset", "source", "expected"),
    [
        ("gemma-3-4b-instruct", "Auto", True),
        ("gemma-3-4b-instruct", "Pull", False),
        ("phi-3-mini-4k-instruct", "Download", False),
    ],
)
def test_a_token_is_needed_only_to_download_a_gated_model(
    phi: Workspace, preset: str, source: str, *, expected: bool
) -> None:
    weights = {"source": source} | ({"artifact": ARTIFACT} if source == "Pull" else {})
    inference = {"preset": {"name": preset, "presetOptions": {"weights": weights}}}
    workspace = phi.evolve(inference=inference, resource=phi.resource.evolve(instance_type="Standard_NC24ads_A100_v4"))
    found = [v.field for v in validate_workspace(workspace, None, WorkspaceSettings()) if v.severity == "error"]
    assert found == ["inference.preset.presetOptions.modelAccessSecret"] * expected


@pytest.mark.parametrize(
    ("local", "rejected"), [("", False), (", local_files_only: false", False), (", local_files_only: true", True)]
)
async def test_a_file_that_forbids_the_download_of_a_tuned_model_is_reported(
    phi: Workspace, local: str, *, rejected: bool
) -> None:
    preset = {"name": "phi-3-mini-4k-instruct", "presetOptions": {"weights": {"source": "Download"}}}
    workspace = Workspace.model_validate({**phi.to_dict(), "inference": None, **tuned(config="mine", preset=preset)})
    text = f"training_config: {{ModelConfig: {{torch_dtype: bfloat16{local}}}}}"
    file = ConfigMap.model_validate(config("mine", text, key="training_config.yaml"))
    found = await run_checks(workspace, WorkspaceSettings(), ManifestReader(config_maps={"mine": file}))
    fields = [finding.field for finding in found.errors]
    assert fields == ["tuning.config[ModelConfig.local_files_only]"] * rejected


async def test_an_api_server_that_hides_its_version_has_no_image_volumes(cluster: "Cluster") -> None:
    """Clusters may remove the right to read `/version` from authenticated users."""
    raw = AsyncMock(side_effect=[Forbidden("no", code=403), NotFound("no", code=404)])
    api = cast("Api", SimpleNamespace(client=SimpleNamespace(raw=raw)))
    facts = ClusterFacts()
    for reads in (1, 1, 2):
        assert await facts.server_version(api) == {}
        assert raw.await_count == reads
        await cluster.world.advance(VERSION_SECONDS / 2)
    assert server_problem({}, IF_ENABLED).startswith("the API server is Kubernetes of unknown version")


@pytest.mark.parametrize("name", ["weights", "cache-permissions"])
def test_no_container_has_the_name_of_another(
    phi: Workspace, plan: Plan, model_container: ModelContainer, name: str
) -> None:
    named = phi.evolve(metadata=phi.metadata.evolve(name=name))
    spec = pod(named, plan, model_container, method="NodeCache", artifact=ARTIFACT, cache_directory="/var/cache/kaito")
    names = [container["name"] for container in (*spec["initContainers"], *spec["containers"])]
    assert len(set(names)) == len(names)
    assert name in names
    assert spec["containers"][0]["name"] == "model"
