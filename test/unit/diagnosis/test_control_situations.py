"""Situations of the controller, the namespace, deletions and tuning, and Workspaces without a cause."""

from typing import Final

import pytest

from kaito.api import Workspace, labels
from kaito.diagnosis import Situation, diagnose
from kaito.runtime.kinds import Job, Namespace, Pod, Secret, StatefulSet
from test.unit.diagnosis.conftest import NAME, Scene, tuning, workspace
from test.unit.diagnosis.table import Expected, Table

TABLE: Final = Table()


# -- the controller and the namespace ---------------------------------------------------------------------------------


@TABLE.add(
    Expected(
        reason="ControllerNotRunning",
        on="Workspace",
        message="no controller has reported on the Workspace; the cluster has no Deployment workspace-controller",
        since=60,
        next="until the workspace-controller runs",
        remedy="kubectl -n kaito-system get pods",
        chain={"Workspace": "failed"},
    )
)
async def no_controller(scene: Scene) -> None:
    await scene.start(controller=False)
    await scene.apply(workspace(), 60)


@TABLE.add(
    Expected(
        reason="ReconcileError",
        on="Workspace",
        message="etcdserver: request timed out",
        since=60,
        next="tries again with growing delays",
        remedy="logs -l app.kubernetes.io/name=workspace-controller",
    )
)
async def api_server_fails(scene: Scene) -> None:
    await scene.start()
    scene.world.fail_next("create", scene.kind, status=500, message="etcdserver: request timed out", times=None)
    scene.world.fail_next("list", scene.kind, status=500, message="etcdserver: request timed out", times=None)
    scene.world.fail_next("get", StatefulSet, status=500, message="etcdserver: request timed out", times=None)
    scene.world.fail_next("PATCH", status=500, message="etcdserver: request timed out", times=1)
    await scene.apply(workspace(), 60)


# -- deletion ---------------------------------------------------------------------------------------------------------


@TABLE.add(
    Expected(
        reason="BlockedByCloud",
        on="Machine",
        message="lock",
        since=None,
        next="the finalizer is removed, also if claims still exist",
        at=None,
        remedy="remove the lock",
        state="deleting",
    )
)
async def deletion_rejected_by_cloud(scene: Scene) -> None:
    await scene.start()
    await scene.apply(workspace())
    await scene.until_ready()
    scene.fail("locked", method="DELETE")
    scene.world.delete(Workspace, NAME)
    await scene.world.advance(500)


@TABLE.add(
    Expected(
        reason="ForeignFinalizer",
        on="Workspace",
        message="the finalizer example.com/backup of another controller",
        since=None,
        next="until the finalizer is removed",
        remedy="remove the finalizer",
        state="deleting",
    )
)
async def finalizer_stuck(scene: Scene) -> None:
    await scene.start()
    await scene.apply(workspace())
    await scene.until_ready()
    found = scene.world.get(Workspace, NAME)
    finalizers = [*found.metadata.finalizers, "example.com/backup"]
    scene.world.patch(Workspace, NAME, {"metadata": {"finalizers": finalizers}})
    scene.world.delete(Workspace, NAME)
    await scene.world.advance(600)


@TABLE.add(
    Expected(
        reason="ControllerNotRunning",
        on="Workspace",
        message="no controller has processed the deletion",
        since=120,
        next="until the workspace-controller runs",
        remedy="get pods",
        state="deleting",
    )
)
async def deletion_without_controller(scene: Scene) -> None:
    await scene.start(controller=False)
    applied = workspace()
    await scene.apply(applied.with_metadata(finalizers=[labels.WORKSPACE_FINALIZER]))
    scene.world.delete(Workspace, NAME)
    await scene.world.advance(120)


async def test_a_terminating_namespace_is_the_cause_until_the_workspace_is_deleted(scene: Scene) -> None:
    await scene.start(controller=False)
    scene.world.patch(Namespace, "default", {"metadata": {"finalizers": ["example.com/hold"]}})
    await scene.apply(workspace().with_metadata(finalizers=[labels.WORKSPACE_FINALIZER]))
    scene.world.delete(Namespace, "default", "")
    await scene.world.advance(40)
    found = await scene.explain()
    assert found.state == "deleting"
    assert found.cause is not None
    assert found.cause.reason == "ControllerNotRunning"
    assert "the namespace default is being deleted, too" in found.notes

    space = scene.world.get(Namespace, "default", "")
    earlier = diagnose(Situation(now=scene.world.now, workspace=workspace(), namespace=space))
    assert earlier.cause is not None
    assert (earlier.cause.reason, earlier.cause.kind) == ("NamespaceTerminating", "Namespace")
    assert any("another namespace" in line for line in earlier.advice)


# -- tuning -----------------------------------------------------------------------------------------------------------


def _push_secret() -> Secret:
    return Secret.model_validate(
        {
            "metadata": {"name": "push", "namespace": "default"},
            "type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": "eyJhdXRocyI6IHsicmVnaXN0cnkuZXhhbXBsZSI6IHsiYXV0aCI6ICJZVHBpIn19fQ=="},
        }
    )


@TABLE.add(
    Expected(
        reason="WorkspaceTuningJobStatusFailed",
        on="Job",
        message="the tuning job failed",
        since=60,
        next="a run is not repeated",
        remedy="correct the cause",
        chain={"Job": "failed", "Node": "ok"},
    )
)
async def tuning_failed(scene: Scene) -> None:
    scene.world.put(_push_secret())
    await scene.start(ready_after=10)
    await scene.apply(tuning(), 245)
    (pod,) = scene.world.list(Pod)
    scene.set_pod(pod, phase="Failed", reason="Error", message="exit code 1")
    await scene.world.advance(60)
    assert scene.world.get(Job, NAME).has_condition("Failed")


@pytest.mark.parametrize("name", TABLE)
async def test_the_situation_is_explained(scene: Scene, name: str) -> None:
    await TABLE.check(name, scene)


async def test_a_ready_workspace_has_no_cause_and_shows_how_it_is_called(scene: Scene) -> None:
    await scene.start()
    await scene.apply(workspace())
    await scene.until_ready()
    found = await scene.explain()
    assert found.is_healthy
    assert (found.state, found.serving, found.next) == ("ready", True, ())
    assert {link.state for link in found.chain} == {"ok"}
    assert [link.kind for link in found.chain] == [
        "Workspace",
        "Machine",
        "AgentPool",
        "Node",
        "StatefulSet",
        "Pod",
        "Server",
    ]
    assert "$ kaito chat phi -n default" in found.advice
    assert any("http://phi.default.svc/v1/models" in line for line in found.advice)


async def test_a_workspace_without_copies_is_stopped(scene: Scene) -> None:
    await scene.start()
    await scene.apply(workspace())
    await scene.until_ready()
    scene.world.patch(Workspace, NAME, {"spec": {"replicas": 0}})
    await scene.world.advance(600)
    found = await scene.explain()
    assert (found.state, found.cause, found.serving) == ("stopped", None, False)
    assert "$ kubectl -n default scale workspace phi --replicas=1   # starts it" in found.advice
    assert not {"Machine", "AgentPool", "Node"} & {link.kind for link in found.chain}


async def test_a_finished_tuning_is_healthy_and_names_its_result(scene: Scene) -> None:
    scene.world.put(_push_secret())
    await scene.start(ready_after=10)
    await scene.apply(tuning())
    await scene.until_ready()
    found = await scene.explain()
    assert (found.state, found.cause) == ("succeeded", None)
    assert any("registry.example/adapter:1" in line for line in found.advice)
