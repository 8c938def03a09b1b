"""Tuning: one Job, its inputs and outputs, its end."""

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from kaito.api import Workspace, labels
from kaito.runtime.kinds import ConfigMap, Job, PersistentVolumeClaim, Secret, StatefulSet
from kaito.runtime.meta import ObjectMeta

if TYPE_CHECKING:
    from test.unit.workspace.conftest import Cluster

NAME = "workspace-tuning-phi-3"


@pytest.fixture
def tuning(phi: Workspace) -> Workspace:
    """The tuning sample Workspace."""
    document = phi.to_dict() | {
        "tuning": {
            "preset": {"name": "phi-3-mini-128k-instruct"},
            "method": "qlora",
            "input": {"urls": ["https://data.example/train.parquet?download=true"]},
            "output": {"image": "registry.example/tuned:0.0.1", "imagePushSecret": "registry-secret"},
        }
    }
    document["metadata"]["name"] = NAME
    del document["inference"]
    return Workspace.model_validate(document)


def push_secret() -> Secret:
    empty = Secret(metadata=ObjectMeta(name="registry-secret"), type="kubernetes.io/dockerconfigjson")
    return empty.with_value(".dockerconfigjson", b'{"auths": {}}')


async def created(cluster: "Cluster") -> dict[str, Any]:
    """The Job's pod spec, once node and Secret are there."""
    await cluster.world.settle()
    cluster.join(cluster.claim())
    await cluster.world.settle()
    spec: dict[str, Any] = cluster.world.get(Job, NAME).to_dict()["spec"]["template"]["spec"]
    return spec


def finish(cluster: "Cluster", condition: str, **status: Any) -> None:
    document = {"conditions": [{"type": condition, "status": "True", "reason": condition}], **status}
    cluster.world.patch(Job, NAME, {"status": document}, subresource="status")


async def test_from_manifest_to_adapter(cluster: "Cluster", tuning: Workspace) -> None:
    world = cluster.world
    world.put(push_secret())
    cluster.apply(tuning)
    async with cluster.controller():
        spec = await created(cluster)
        (container,) = spec["containers"]
        command = " ".join(container["command"])
        for flag in ("--method=qlora", "--push-image=registry.example/tuned:0.0.1", "--data-dir=/mnt/data"):
            assert flag in command
        env = {variable["name"]: variable["value"] for variable in container["env"]}
        assert env["DATA_URLS"] == '["https://data.example/train.parquet?download=true"]'
        assert spec["restartPolicy"] == "Never"
        assert world.get(Job, NAME).spec.backoff_limit == 0
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        assert volumes["docker-config"]["secret"]["secretName"] == "registry-secret"
        assert world.find(StatefulSet, NAME) is None

        config = world.get(ConfigMap, volumes["config-volume"]["configMap"]["name"])
        settings = yaml.safe_load(config.data["training_config.yaml"])["training_config"]
        assert settings["QuantizationConfig"]["load_in_4bit"] is True

        world.patch(Job, NAME, {"status": {"active": 1, "ready": 1}}, subresource="status")
        await world.settle()
        assert cluster.conditions(NAME)["JobStarted"][0] == "True"
        assert cluster.workspace(NAME).status.state == "Running"
        finish(cluster, "Complete", succeeded=1, active=0)
        await world.settle()
        assert cluster.conditions(NAME)["WorkspaceSucceeded"][0] == "True"
        assert cluster.conditions(NAME)["WorkspaceReady"][0] == "True"
        assert cluster.workspace(NAME).status.state == "Succeeded"


async def test_a_missing_push_secret_is_reported_before_a_claim_is_created(
    cluster: "Cluster", tuning: Workspace
) -> None:
    cluster.apply(tuning)
    async with cluster.controller():
        await cluster.world.settle()
        assert cluster.conditions(NAME)["WorkspaceReady"][1] == "SecretNotFound"
        assert "registry-secret" in cluster.conditions(NAME)["WorkspaceReady"][2]
        assert cluster.claims() == []
        cluster.world.put(push_secret())
        await cluster.world.advance(31)
        assert len(cluster.claims()) == 1


async def test_a_config_map_of_another_owner_is_left_unchanged(cluster: "Cluster", tuning: Workspace) -> None:
    world = cluster.world
    world.put(push_secret())
    world.put(ConfigMap(metadata=ObjectMeta(name=f"{NAME}-training"), data={"theirs": "1"}))
    cluster.apply(tuning)
    async with cluster.controller():
        await world.settle()
        assert cluster.claims() == []
        assert cluster.conditions(NAME)["ResourceReady"][1] == "NameConflict"
        theirs = world.get(ConfigMap, f"{NAME}-training")
        assert (theirs.data, theirs.metadata.owner_references) == ({"theirs": "1"}, [])

        world.delete(ConfigMap, theirs.name)
        await world.advance(11)
        assert len(cluster.claims()) == 1


async def test_a_failed_run_is_reported_with_its_termination_message(cluster: "Cluster", tuning: Workspace) -> None:
    from kaito.runtime.kinds import Pod

    cluster.world.put(push_secret())
    cluster.apply(tuning)
    async with cluster.controller():
        await created(cluster)
        ended = {"terminated": {"exitCode": 3, "reason": "Error", "message": "no file of a known kind"}}
        cluster.world.put(
            Pod.model_validate(
                {
                    "metadata": {"name": f"{NAME}-abc", "labels": {labels.WORKSPACE: NAME}},
                    "spec": {"containers": [{"name": NAME, "image": "x"}]},
                    "status": {"phase": "Failed", "containerStatuses": [{"name": NAME, "state": ended}]},
                }
            )
        )
        finish(cluster, "Failed", failed=1)
        await cluster.world.settle()
        condition = cluster.conditions(NAME)["WorkspaceReady"]
        assert condition[:2] == ("False", "WorkspaceFailed")
        assert "exit code 3: no file of a known kind" in condition[2]
        assert cluster.workspace(NAME).status.state == "Failed"


async def test_another_output_makes_another_job(cluster: "Cluster", tuning: Workspace) -> None:
    world = cluster.world
    world.put(push_secret())
    cluster.apply(tuning)
    async with cluster.controller():
        await created(cluster)
        first = world.get(Job, NAME)
        finish(cluster, "Complete", succeeded=1)
        await world.settle()
        world.patch(Workspace, NAME, {"tuning": {"output": {"image": "registry.example/tuned:0.0.2"}}})
        await world.advance(10)
        second = world.get(Job, NAME)
        assert second.uid != first.uid
        assert any("0.0.2" in word for word in second.spec.template.spec.containers[0].command)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"image": "r.example/data:1", "imagePullSecrets": ["pull"]}, "puller-data"),
        ({"volumeSource": {"persistentVolumeClaim": {"claimName": "data"}}}, ""),
    ],
)
async def test_data_from_an_image_or_a_volume(
    cluster: "Cluster", tuning: Workspace, source: dict[str, Any], expected: str
) -> None:
    document = tuning.to_dict()
    output = {"volumeSource": {"persistentVolumeClaim": {"claimName": "adapters"}}}
    document["tuning"] |= {"input": source, "output": output}
    for name in ("data", "adapters"):
        cluster.world.put(PersistentVolumeClaim(metadata=ObjectMeta(name=name)))
    cluster.world.put(push_secret().evolve(metadata=ObjectMeta(name="pull")))
    cluster.apply(Workspace.model_validate(document))
    async with cluster.controller():
        spec = await created(cluster)
        names = [container["name"] for container in spec.get("initContainers", [])]
        assert names == ["weights", *filter(None, [expected])]
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        assert ("persistentVolumeClaim" in volumes["data-volume"]) is not bool(expected)
        assert "--push-image" not in " ".join(spec["containers"][0]["command"])


async def test_a_node_lost_after_tuning_ended_is_not_replaced(cluster: "Cluster", tuning: Workspace) -> None:
    cluster.world.put(push_secret())
    cluster.apply(tuning)
    async with cluster.controller():
        await created(cluster)
        finish(cluster, "Complete", succeeded=1)
        await cluster.world.settle()
        cluster.world.delete(cluster.kind, cluster.claim().name)
        await cluster.world.advance(1200)
        assert cluster.claims() == []
        assert cluster.conditions(NAME)["WorkspaceReady"][0] == "True"
