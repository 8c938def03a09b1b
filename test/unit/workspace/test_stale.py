"""Conditions are never stale: whatever fails in a pass, its conditions report it (A.4, faults 03, 05 and 06)."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kaito.api import Workspace, labels
from kaito.runtime.errors import ServerError
from kaito.runtime.kinds import Job, Node, Secret, StatefulSet
from kaito.runtime.meta import ObjectMeta
from kaito.workspace import controller
from kaito.workspace.context import Pass
from kaito.workspace.status import claim_condition_type
from kaito.workspace.steps import cleanup as removal

if TYPE_CHECKING:
    from test.unit.workspace.conftest import Cluster

NAME = "workspace-phi-3-mini"
OWN = {"ModelResolved", "NodesReady", "ResourceReady", "InferenceReady", "WorkspaceSucceeded", "WorkspaceReady"}

Raise = Callable[[Pass], Awaitable[None]]


def touch(cluster: "Cluster", word: str = "again") -> None:
    cluster.world.patch(Workspace, NAME, {"metadata": {"labels": {"touched": word}}})


def failing(error: Exception) -> Raise:
    async def step(_: Pass) -> None:
        raise error

    return step


def break_step(monkeypatch: pytest.MonkeyPatch, number: int, step: Raise) -> controller.Step:
    """Put something else in the place of a step."""
    steps = list(controller.STEPS)
    broken = steps[number]
    steps[number] = replace(broken, run=step)
    monkeypatch.setattr(controller, "STEPS", tuple(steps))
    return broken


def warnings(cluster: "Cluster", reason: str) -> list[str]:
    return [event.note for event in cluster.world.events() if event.reason == reason]


ERRORS = [
    RuntimeError("a surprise"),
    ServerError("etcdserver: request timed out", code=500),
    ExceptionGroup("several", [ValueError("one"), KeyError("two")]),
]


@pytest.mark.parametrize("number", range(len(controller.STEPS)), ids=[s.name for s in controller.STEPS])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_whatever_a_step_raises_no_condition_stays_as_it_was(
    cluster: "Cluster", phi: Workspace, monkeypatch: pytest.MonkeyPatch, number: int, error: Exception
) -> None:
    """Each condition is evaluated in the failing pass, or Unknown with the error: none keeps True from before."""
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        assert cluster.columns() == ("True", "True", "True")
        good = list(controller.STEPS)
        step = break_step(monkeypatch, number, failing(error))
        # What the step would have reported is not true any more.
        cluster.world.delete(Node, f"node-{cluster.claim().name}", "")
        cluster.serve(ready=0)
        touch(cluster)
        await cluster.world.advance(20)
        told = cluster.told()
        own = {*OWN, claim_condition_type(cluster.settings.node_api)}
        assert set(told) == own
        for name in own & step.aspects:
            status, _, message = told[name]
            assert f"{step.name} failed: " in message
            assert status in {"Unknown", "False"}, f"{name} is still {status}: {message}"
        for name in ("ResourceReady", "InferenceReady", "WorkspaceReady"):
            assert told[name][0] != "True", f"{name} says {told[name]}"
        assert len(warnings(cluster, "ReconcileError")) == 1, "one event, not one for each retry"

        monkeypatch.setattr(controller, "STEPS", tuple(good))
        await cluster.world.advance(120)
        assert "failed: " not in " ".join(message for _, _, message in cluster.told().values())


@pytest.mark.parametrize("number", range(len(controller.STEPS)), ids=[s.name for s in controller.STEPS])
async def test_a_step_that_fails_in_the_first_pass_ever_is_told(
    cluster: "Cluster", phi: Workspace, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    step = break_step(monkeypatch, number, failing(RuntimeError("at birth")))
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.world.advance(5)
        told = cluster.told()
        assert any(f"{step.name} failed: RuntimeError: at birth" in message for _, _, message in told.values())
        assert {told[name][0] for name in ("ResourceReady", "InferenceReady", "WorkspaceReady")} <= {"False", "Unknown"}
        if step.name != "releasing surplus nodes":
            assert len(cluster.claims()) == (0 if number < 3 else 1), "nothing is bought after a failed step"


async def test_a_request_that_hangs_is_told(
    cluster: "Cluster", phi: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(_: Pass) -> None:
        await asyncio.Event().wait()

    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        step = break_step(monkeypatch, 0, hang)
        touch(cluster)
        await cluster.world.advance(300)
        assert f"{step.name} failed: TimeoutError: not finished after 240 s" in cluster.told()["WorkspaceReady"][2]
        assert cluster.told()["WorkspaceReady"][0] == "Unknown"
        monkeypatch.undo()
        await cluster.world.advance(900)
        assert cluster.columns() == ("True", "True", "True")


async def test_a_status_that_cannot_be_computed_is_unknown(
    cluster: "Cluster", phi: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("arithmetic of conditions")

    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        with monkeypatch.context() as patched:
            patched.setattr("kaito.workspace.steps.status.verdicts", broken)
            touch(cluster)
            await cluster.world.advance(10)
            for status, reason, message in cluster.told().values():
                assert (status, reason) == ("Unknown", "ReconcileError")
                assert "computing the status failed: ZeroDivisionError: arithmetic of conditions" in message
            assert len(warnings(cluster, "ReconcileError")) == 1
        await cluster.world.advance(600)
        assert cluster.columns() == ("True", "True", "True")


async def test_a_later_verdict_that_is_unknown_overwrites_an_old_one(phi: Workspace, world: Any) -> None:
    """deploy-L1: ModelResolved kept "no node matches the label selector" after the node was labeled."""
    from kaito.workspace.settings import NodeApi, WorkspaceSettings
    from test.unit.workspace.conftest import Cluster

    cluster = Cluster(world, WorkspaceSettings(node_api=NodeApi.BYO))
    cluster.apply(phi.evolve(resource=phi.resource.evolve(instance_type="")))
    async with cluster.controller():
        await world.settle()
        assert "no node matches" in cluster.told()["ModelResolved"][2]
        node: dict[str, Any] = {"metadata": {"name": "mine", "labels": {"apps": "phi-3"}}, "status": {"conditions": []}}
        world.put(Node.model_validate(node))
        await world.advance(35)
        assert "no node matches" not in cluster.told()["ModelResolved"][2]
        assert cluster.told()["ModelResolved"][1] == "UnknownInstanceType"


UNTYPABLE = (
    "failed to create typed patch object (default/workspace-phi-3-mini; apps/v1, Kind=StatefulSet): "
    '.spec.template.spec.containers[name="server"].imagePulPolicy: field not declared in schema'
)


async def test_a_field_that_the_kind_does_not_have_is_a_refusal(cluster: "Cluster", phi: Workspace) -> None:
    """Fault 03: kube-apiserver answers 500 to server-side apply of a misspelt field."""
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.world.settle()  # the dry run before the claim passes, the server changes its mind later
        cluster.world.fail_next("PATCH", StatefulSet, status=500, message=UNTYPABLE, times=None)
        cluster.join(cluster.claim())
        await cluster.world.advance(30)
        for name in ("InferenceReady", "WorkspaceReady"):
            status, reason, message = cluster.told()[name]
            assert (status, reason) == ("False", "WorkloadRefused")
            assert "imagePulPolicy: field not declared in schema" in message
        assert cluster.columns()[0] == "True"
        assert len(warnings(cluster, "WorkloadRefused")) == 1


@pytest.mark.parametrize(
    "template",
    [
        {"spec": {"containers": [{"name": "server", "image": "i", "ports": [{"containerPort": "http"}]}]}},
        {"spec": {"containers": "x", "affinity": "no", "tolerations": "no"}},
        {"spec": {"containers": [{"name": "server", "image": "i"}], "affinity": {"podAffinity": 3}}},
        {"spec": {"containers": [3]}, "metadata": {"labels": "text"}},
        {"spec": "text"},
    ],
)
async def test_a_template_of_wrong_types_is_never_stale(
    cluster: "Cluster", phi: Workspace, template: dict[str, Any]
) -> None:
    """Fault 03: whether it is refused before a node is bought or when it is rendered, the cause is in the columns."""
    document = phi.to_dict() | {"inference": {"template": template}}
    cluster.apply(Workspace.model_validate(document))
    async with cluster.controller():
        await cluster.world.advance(5)
        for claim in cluster.claims():
            cluster.join(claim)
        await cluster.world.advance(30)
        status, reason, message = cluster.told()["InferenceReady"]
        assert status == "False"
        assert reason in {"WorkloadRefused", "InvalidSpec"}
        assert "template" in message
        assert cluster.world.find(StatefulSet, NAME) is None


# ── deletion ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def columns_of_deletion(cluster: "Cluster", name: str, workload: str) -> None:
    told = cluster.told(name)
    for column in ("ResourceReady", workload, "WorkspaceReady", "WorkspaceSucceeded"):
        assert told[column][:2] == ("False", "WorkspaceDeleting")
    assert not [kind for kind, (status, _, _) in told.items() if status == "True" and kind != "WorkspaceDeleting"]


async def test_nothing_is_ready_from_the_first_pass_of_a_deletion(cluster: "Cluster", phi: Workspace) -> None:
    """Fault 05."""
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        finalizers = {"metadata": {"finalizers": [labels.TERMINATION_FINALIZER]}}
        cluster.world.patch(cluster.kind, cluster.claim().name, finalizers)
        cluster.world.delete(Workspace, phi.name)
        await cluster.world.settle()
        columns_of_deletion(cluster, NAME, "InferenceReady")
        assert cluster.workspace().status.state == "NotReady"


async def test_nothing_is_ready_although_the_deletion_itself_fails(cluster: "Cluster", phi: Workspace) -> None:
    """Fault 05: also when removal raises, and the error is told once."""
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        cluster.world.fail_next("DELETE", StatefulSet, status=500, message="etcdserver: no leader", times=None)
        cluster.world.delete(Workspace, phi.name)
        await cluster.world.advance(30)
        columns_of_deletion(cluster, NAME, "InferenceReady")
        assert cluster.told()["WorkspaceDeleting"] == ("True", "DeletionFailed", "etcdserver: no leader")
        assert warnings(cluster, "DeletionFailed") == ["etcdserver: no leader"]
        cluster.world.heal()
        await cluster.world.advance(60)
        assert cluster.world.find(Workspace, phi.name) is None


@pytest.mark.parametrize(
    "part", ["_delete_workload", "_delete_claims", "_release_preferred_nodes", "_drop_legacy_finalizer"]
)
async def test_whatever_fails_in_a_deletion_is_told(
    cluster: "Cluster", phi: Workspace, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    async def broken(*_: Any) -> None:
        raise RuntimeError("a surprise")

    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        monkeypatch.setattr(removal, part, broken)
        cluster.world.delete(Workspace, phi.name)
        await cluster.world.advance(10)
        columns_of_deletion(cluster, NAME, "InferenceReady")
        assert cluster.told()["WorkspaceDeleting"] == ("True", "DeletionFailed", "RuntimeError: a surprise")
        monkeypatch.undo()
        await cluster.world.advance(60)
        assert cluster.world.find(Workspace, phi.name) is None


async def test_a_cloud_that_refuses_the_deletion_is_told(cluster: "Cluster", phi: Workspace) -> None:
    """Fault 06: the claim's InstanceTerminating condition reaches the Workspace, with one Warning."""
    words = "The scope cannot perform delete operation because following scope(s) are locked."
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        claim = cluster.claim()
        cluster.world.patch(cluster.kind, claim.name, {"metadata": {"finalizers": [labels.TERMINATION_FINALIZER]}})
        cluster.world.delete(Workspace, phi.name)
        await cluster.world.settle()
        assert cluster.told()["WorkspaceDeleting"][1] == "WaitingForClaims"
        drained = {"type": "Drained", "status": "True", "reason": "Drained"}
        refused = {"type": "InstanceTerminating", "status": "False", "reason": "BlockedByCloud", "message": words}
        cluster.say(cluster.claim(), drained, refused)
        await cluster.world.advance(60)
        status, reason, message = cluster.told()["WorkspaceDeleting"]
        assert (status, reason) == ("True", "CloudRefusesDeletion")
        assert words in message
        assert claim.name in message
        assert len(warnings(cluster, "CloudRefusesDeletion")) == 1
        columns_of_deletion(cluster, NAME, "InferenceReady")


async def test_a_deletion_that_is_only_slow_is_no_refusal(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        cluster.world.patch(
            cluster.kind, cluster.claim().name, {"metadata": {"finalizers": [labels.TERMINATION_FINALIZER]}}
        )
        cluster.world.delete(Workspace, phi.name)
        await cluster.world.settle()
        draining = {"type": "Drained", "status": "Unknown", "reason": "Draining", "message": "2 pods have to leave"}
        cluster.say(cluster.claim(), draining)
        await cluster.world.advance(6)
        status, reason, message = cluster.told()["WorkspaceDeleting"]
        assert (status, reason) == ("True", "WaitingForClaims")
        assert "Draining: 2 pods have to leave" in message
        assert warnings(cluster, "CloudRefusesDeletion") == []


async def until_tuning(cluster: "Cluster", phi: Workspace) -> None:
    """A tuning Workspace whose Job runs."""
    tuning = {
        "preset": {"name": "phi-3-mini-128k-instruct"},
        "method": "qlora",
        "input": {"urls": ["https://data.example/train.parquet"]},
        "output": {"image": "registry.example/tuned:1", "imagePushSecret": "push"},
    }
    document = {name: value for name, value in phi.to_dict().items() if name != "inference"} | {"tuning": tuning}
    metadata = ObjectMeta(name="push", namespace="default")
    data = {".dockerconfigjson": "eyJhdXRocyI6e319"}
    cluster.world.put(Secret(metadata=metadata, type="kubernetes.io/dockerconfigjson", data=data))
    cluster.apply(Workspace.model_validate(document))
    await cluster.world.settle()
    cluster.join(cluster.claim())
    await cluster.world.settle()
    cluster.world.patch(Job, NAME, {"status": {"active": 1, "ready": 1}}, subresource="status")
    await cluster.world.settle()
    assert cluster.told()["JobStarted"][0] == "True"


@pytest.mark.parametrize("number", range(len(controller.STEPS)), ids=[s.name for s in controller.STEPS])
async def test_whatever_a_step_raises_while_tuning_no_condition_stays_as_it_was(
    cluster: "Cluster", phi: Workspace, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    async with cluster.controller():
        await until_tuning(cluster, phi)
        step = break_step(monkeypatch, number, failing(RuntimeError("a surprise")))
        cluster.world.delete(Node, f"node-{cluster.claim().name}", "")
        cluster.world.patch(Job, NAME, {"status": {"active": 0, "ready": 0}}, subresource="status")
        touch(cluster)
        await cluster.world.advance(20)
        told = cluster.told()
        assert "InferenceReady" not in told
        for name in ("ResourceReady", "JobStarted", "WorkspaceSucceeded", "WorkspaceReady"):
            assert told[name][0] != "True", f"{name} says {told[name]}"
        for name in set(told) & step.aspects:
            assert f"{step.name} failed: RuntimeError: a surprise" in told[name][2]
        assert len(warnings(cluster, "ReconcileError")) == 1


async def test_tuning_ends_being_ready_too(cluster: "Cluster", phi: Workspace) -> None:
    """Fault 05 for a tuning Workspace."""
    async with cluster.controller():
        await until_tuning(cluster, phi)
        finalizers = {"metadata": {"finalizers": [labels.TERMINATION_FINALIZER]}}
        cluster.world.patch(cluster.kind, cluster.claim().name, finalizers)
        cluster.world.delete(Workspace, NAME)
        await cluster.world.settle()
        columns_of_deletion(cluster, NAME, "JobStarted")
        assert cluster.workspace().status.state == "Pending"
        assert "InferenceReady" not in cluster.told()
