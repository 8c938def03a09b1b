"""Pods of presets on both API servers: accepted as rendered, in a namespace with Pod Security `restricted`.

Only kube-apiserver has that admission plugin. It also rejects what it should: a directory of the node.
"""

from typing import Any

import pytest

from kaito.api import Workspace
from kaito.models.weights import Weights
from kaito.runtime.meta import Quantity
from kaito.workspace.manifests.inference import inference_stateful_set
from kaito.workspace.manifests.tuning import tuning_job
from kaito.workspace.plan import Hardware, ModelContainer, Plan
from kaito.workspace.settings import WorkspaceSettings
from test.contract.conftest import MERGE, Server

ARTIFACT = "registry.example.com/models/phi:1"
SOURCES = [
    Weights(method="Image"),
    Weights(method="ImageVolume", artifact=ARTIFACT),
    Weights(method="Pull", artifact=ARTIFACT),
    Weights(method="NodeCache", artifact=ARTIFACT, cache_claim="models"),
    Weights(method="Download"),
]
ON_THE_NODE = Weights(method="NodeCache", artifact=ARTIFACT, cache_directory="/var/cache/kaito")
RESOURCE = {"instanceType": "Standard_NC6s_v3", "labelSelector": {"matchLabels": {"apps": "phi"}}}
ADAPTER = {"source": {"name": "a", "image": "registry.example.com/a:1", "imagePullSecrets": ["pull"]}}
PARTS: dict[str, dict[str, Any]] = {
    "inference": {"inference": {"preset": {"name": "phi-3-mini-4k-instruct"}, "adapters": [ADAPTER]}},
    "tuning": {
        "tuning": {
            "preset": {"name": "phi-3-mini-4k-instruct"},
            "method": "qlora",
            "input": {"image": "registry.example.com/data:1", "imagePullSecrets": ["pull"]},
            "output": {"image": "registry.example.com/out:1", "imagePushSecret": "push"},
        }
    },
}


def pod(part: str, weights: Weights) -> dict[str, Any]:
    """The pod of a Workspace, with everything that it can have."""
    metadata = {"name": "phi", "namespace": "default", "uid": "1"}
    workspace = Workspace.model_validate({"metadata": metadata, "resource": RESOURCE, **PARTS[part]})
    hardware = Hardware(copies=1, instance_type="Standard_NC6s_v3", gpus=1, disk=Quantity("80Gi"))
    image = "kaito/kaito-serving:1"
    container = ModelContainer(
        preset="phi-3-mini-4k-instruct",
        image=image,
        tools_image=image,
        command=("python3", "serve"),
        pull_secrets=("pull",),
        access_secret="hf",
        weights=weights,
    )
    plan = Plan(hardware=hardware, container=container, config_map="mine")
    settings = WorkspaceSettings()
    workload = inference_stateful_set(workspace, plan, settings) if part == "inference" else None
    rendered = (workload or tuning_job(workspace, plan, settings)).to_dict()["spec"]["template"]
    return {"apiVersion": "v1", "kind": "Pod", **rendered, "metadata": {**rendered["metadata"], "name": "phi-0"}}


async def create(server: Server, body: dict[str, Any]) -> tuple[int, str]:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    await server.ok("PATCH", "/api/v1/namespaces/{ns}", {"metadata": {"labels": labels}}, MERGE)
    answer = await server.call("POST", "/api/v1/namespaces/{ns}/pods", body, dryRun="All")
    return answer.status, str(answer.body.get("message", ""))


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("weights", SOURCES, ids=lambda weights: weights.method)
async def test_a_restricted_namespace_accepts_the_pods(server: Server, part: str, weights: Weights) -> None:
    assert await create(server, pod(part, weights)) == (201, "")


async def test_a_restricted_namespace_rejects_a_directory_of_the_node(server: Server) -> None:
    status, message = await create(server, pod("inference", ON_THE_NODE))
    if server.name == "memory":
        assert status == 201, "the in-memory API server has no Pod Security admission"
    else:
        assert status == 403
        assert "restricted volume types" in message


async def test_an_image_volume_is_stored(server: Server) -> None:
    """An API server with the feature gate off would drop the source and reject the volume without one."""
    answer = await server.call("POST", "/api/v1/namespaces/{ns}/pods", pod("inference", SOURCES[1]), dryRun="All")
    assert answer.status == 201, answer.body
    (volume,) = (each for each in answer.body["spec"]["volumes"] if each["name"] == "weights")
    assert volume["image"] == {"reference": ARTIFACT, "pullPolicy": "IfNotPresent"}
