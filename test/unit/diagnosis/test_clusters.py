"""Diagnoses on other clusters: missing permissions, existing nodes, several nodes, upstream's objects."""

from typing import Any

import pytest

from kaito.api import NodeClaim, Workspace, labels
from kaito.cli.explain.reader import SituationReader, WorkspaceMissing, namespace_and_name
from kaito.planning.documents import InputError
from kaito.runtime import Client
from kaito.runtime.kinds import ClusterRole, PolicyRule, RoleBinding, RoleRef, Subject
from kaito.runtime.meta import ObjectMeta, format_time
from kaito.runtime.testing import builders
from kaito.workspace.settings import NodeApi
from test.unit.diagnosis.conftest import NAME, SIZE, Scene, workspace

READER = "ann"


def allow(scene: Scene, *rules: PolicyRule) -> None:
    """Gives the user permissions in the namespace `default` only."""
    scene.world.put(ClusterRole(metadata=ObjectMeta(name="reader"), rules=list(rules)))
    scene.world.put(
        RoleBinding(
            metadata=ObjectMeta(name="reader", namespace="default"),
            role_ref=RoleRef(api_group="rbac.authorization.k8s.io", kind="ClusterRole", name="reader"),
            subjects=[Subject(kind="User", name=READER, api_group="rbac.authorization.k8s.io")],
        )
    )


async def test_without_permission_for_claims_and_nodes_the_workspace_has_the_cause(scene: Scene) -> None:
    scene.fail("quota")
    await scene.start()
    await scene.apply(workspace(), 60)
    allow(scene, PolicyRule(api_groups=["kaito.sh"], resources=["workspaces"], verbs=["get", "list"]))
    found = await scene.explain(user=READER)
    assert found.cause is not None
    assert (found.cause.kind, found.cause.reason) == ("Workspace", "QuotaExceeded")
    assert any("az vm list-usage" in line for line in found.advice)
    unread = {note.partition(" could")[0] for note in found.notes}
    assert unread == {"claims", "nodes", "pods", "workloads", "services", "events", "namespace", "controllers"}
    assert [(link.kind, link.state) for link in found.chain if link.kind == "Machine"] == [("Machine", "unknown")]


async def test_without_permission_for_workspaces_the_error_is_raised(scene: Scene) -> None:
    await scene.apply(workspace())
    with pytest.raises(Exception, match="cannot get resource"):
        await scene.explain(user=READER)


@pytest.mark.parametrize(
    ("name", "namespace", "message"),
    [
        ("phy", "default", "did you mean phi"),
        ("zzzz", "default", "the namespace has: phi"),
        ("phi", "other", "it exists in the namespace default"),
        ("phi2", "other", "the namespace has no Workspaces"),
    ],
)
async def test_a_workspace_that_does_not_exist(scene: Scene, name: str, namespace: str, message: str) -> None:
    await scene.apply(workspace())
    reader = SituationReader(Client(scene.world.transport(), field_manager="kaito-explain"))
    with pytest.raises(WorkspaceMissing, match=message):
        await reader.read(name, namespace, scene.world.now)


@pytest.mark.parametrize(
    ("argument", "flag", "result"),
    [
        ("phi", "", ("", "phi", False)),
        ("phi", "team", ("team", "phi", False)),
        ("team/phi", "", ("team", "phi", False)),
        ("team/phi", "team", ("team", "phi", False)),
        ("workspace/phi", "team", ("team", "phi", False)),
        ("inferenceset/phi", "team", ("team", "phi", True)),
        ("is/phi", "", ("", "phi", True)),
    ],
)
def test_names(argument: str, flag: str, result: tuple[str, str, bool]) -> None:
    assert namespace_and_name(argument, flag) == result


@pytest.mark.parametrize(("argument", "flag"), [("a/phi", "b"), ("a/b/c", ""), ("a/", "")])
def test_wrong_names(argument: str, flag: str) -> None:
    with pytest.raises(InputError, match="a/"):
        namespace_and_name(argument, flag)


class TestExistingNodes:
    """`--node-api byo`."""

    @pytest.fixture
    def node_api(self) -> NodeApi:
        return NodeApi.BYO

    async def test_a_node_without_gpus_is_the_cause(self, scene: Scene) -> None:
        gpu = {"nvidia.com/gpu.product": "NVIDIA-A100-80GB-PCIe", "nvidia.com/gpu.count": "1"}
        own = {"apps": "phi", "nvidia.com/gpu.memory": "81920", **gpu}
        scene.world.put(builders.node("mine", labels=own))
        await scene.start()
        resource = {"labelSelector": {"matchLabels": {"apps": "phi"}}}
        await scene.apply(workspace(resource=resource), 90)
        found = await scene.explain()
        assert found.cause is not None
        assert (found.cause.kind, found.cause.name) == ("Node", "mine")
        assert found.cause.reason == "NodePluginsNotReady"
        assert any("install the device plugin" in line for line in found.advice)
        assert not {"Machine", "NodeClaim", "AgentPool"} & {link.kind for link in found.chain}
        assert all(step.at is None for step in found.next)

    async def test_a_ready_workspace(self, scene: Scene) -> None:
        gpu = {"nvidia.com/gpu.product": "NVIDIA-A100-80GB-PCIe", "nvidia.com/gpu.count": "1"}
        own = {"apps": "phi", "nvidia.com/gpu.memory": "81920", **gpu}
        scene.world.put(builders.node("mine", labels=own, capacity={labels.NVIDIA_GPU: "1"}))
        await scene.start()
        await scene.apply(workspace(resource={"labelSelector": {"matchLabels": {"apps": "phi"}}}))
        await scene.until_ready()
        found = await scene.explain()
        assert found.state == "ready"
        assert [link.kind for link in found.chain] == ["Workspace", "Node", "StatefulSet", "Pod", "Server"]


class TestSeveralNodes:
    """Claims of one Workspace in different states."""

    @pytest.fixture
    def node_api(self) -> NodeApi:
        return NodeApi.NODECLAIM

    async def test_the_claim_that_fails_is_the_cause(self, scene: Scene) -> None:
        await scene.start()
        resource = {"instanceType": SIZE, "count": 3, "labelSelector": {"matchLabels": {"apps": "phi"}}}
        scene.fail("quota", times=1)
        await scene.apply(workspace(resource=resource), 300)
        found = await scene.explain()
        assert found.cause is not None
        claims = [link for link in found.chain if link.kind == "NodeClaim"]
        assert sorted(link.state for link in claims) == ["failed", "ok", "ok"]
        (failed,) = [link for link in claims if link.state == "failed"]
        assert (found.cause.reason, found.cause.name) == ("QuotaExceeded", failed.name)
        assert [link.state for link in found.chain if link.kind == "Node"] == ["ok", "ok", "absent"]


def _upstream(status: dict[str, Any]) -> Workspace:
    found = workspace().with_metadata(finalizers=[labels.LEGACY_WORKSPACE_FINALIZER])
    return Workspace.model_validate(found.to_dict() | {"status": status})


async def test_objects_of_upstream_kaito(scene: Scene) -> None:
    """Go Kaito and Go gpu-provisioner: other reasons, no annotations of this project, no UID label."""
    now = format_time(scene.world.now)
    scene.world.put(_upstream({}))
    not_ready = {"status": "False", "lastTransitionTime": now}
    message = "reason: checkNodeClaimStatusFailed, message: nodeClaim ws1 is not ready"
    status = {
        "conditions": [
            {"type": "ResourceReady", "reason": "workspaceResourceStatusFailed", "message": message, **not_ready},
            {"type": "WorkspaceSucceeded", "reason": "workspaceFailed", "message": message, **not_ready},
        ]
    }
    scene.world.patch(Workspace, NAME, {"status": status}, subresource="status")
    owner = {labels.WORKSPACE: NAME, labels.WORKSPACE_NAMESPACE: "default", labels.NODEPOOL: "kaito"}
    document = {
        "metadata": {"name": "ws1", "labels": owner},
        "spec": {
            "nodeClassRef": {"group": "kaito.sh", "kind": "KaitoNodeClass", "name": "default"},
            "requirements": [{"key": labels.INSTANCE_TYPE, "operator": "In", "values": [SIZE]}],
        },
    }
    scene.world.put(NodeClaim.model_validate(document))
    failure = "creating instance, agentPool.BeginCreateOrUpdate: ErrCode_InsufficientVCPUQuota, exceeding quota"
    launched = {"type": "Launched", "reason": "LaunchFailed", "message": failure, **not_ready}
    scene.world.patch(NodeClaim, "ws1", {"status": {"conditions": [launched]}}, subresource="status")
    await scene.world.advance(240)
    found = await scene.explain()
    assert found.cause is not None
    assert (found.cause.kind, found.cause.name, found.cause.reason) == ("NodeClaim", "ws1", "LaunchFailed")
    assert "ErrCode_InsufficientVCPUQuota" in found.cause.message
    assert any("az vm list-usage" in line for line in found.advice)
    assert any("upstream Kaito reconciles the Workspace" in note for note in found.notes)
    assert (found.state, [link.kind for link in found.chain][:3]) == (
        "failing",
        ["Workspace", "NodeClaim", "AgentPool"],
    )


async def test_a_ready_workspace_of_upstream_kaito(scene: Scene) -> None:
    now = format_time(scene.world.now)
    scene.world.put(_upstream({}))
    types = ("ResourceReady", "InferenceReady", "WorkspaceSucceeded")
    ready = [{"type": t, "status": "True", "reason": "x", "message": "", "lastTransitionTime": now} for t in types]
    status = {"conditions": ready, "workerNodes": ["n1"]}
    scene.world.patch(Workspace, NAME, {"status": status}, subresource="status")
    scene.world.put(builders.node("n1", labels={labels.INSTANCE_TYPE: SIZE}, capacity={labels.NVIDIA_GPU: "1"}))
    found = await scene.explain()
    assert found.is_healthy
    assert [link.name for link in found.chain if link.kind == "Node"] == ["n1"]


async def test_conditions_of_an_earlier_generation_are_noted(scene: Scene) -> None:
    await scene.start()
    await scene.apply(workspace())
    await scene.until_ready()
    await scene.stop()
    scene.world.patch(Workspace, NAME, {"inference": {"config": "settings"}})
    found = await scene.explain()
    assert any("generation 2" in note for note in found.notes)
