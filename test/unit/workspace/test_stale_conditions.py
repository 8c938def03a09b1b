"""Conditions are never stale: if a step fails, the conditions that it decides report the failure."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import pytest

from kaito.api import Workspace, labels
from kaito.runtime.errors import ServerError
from kaito.runtime.kinds import Job, Node, Secret, StatefulSet
from kaito.runtime.meta import ObjectMeta
from kaito.workspace import controller
from kaito.workspace.failure import Step
from kaito.workspace.status import claim_condition_type
from kaito.workspace.steps import cleanup

if TYPE_CHECKING:
    from test.unit.workspace.conftest import Cluster

NAME = "workspace-phi-3-mini"
OWN = {"ModelResolved", "NodesReady", "ResourceReady", "InferenceReady", "WorkspaceSucceeded", "WorkspaceReady"}

STEPS: Final = {
    "plan_workspace": controller.PLANNING,
    "observe_nodes": controller.NODE_STEP,
    "ensure_claims": controller.CLAIM_STEP,
    "ensure_services": controller.SERVICE_STEP,
    "ensure_inference": controller.INFERENCE_STEP,
    "ensure_tuning": controller.TUNING_STEP,
    "delete_surplus_claims": controller.SURPLUS_STEP,
}
"""Functions of the controller's module in the order in which a reconcile calls them."""

StepFunction = Callable[..., Awaitable[None]]


def touch(cluster: "Cluster", word: str = "again") -> None:
    cluster.world.patch(Workspace, NAME, {"metadata": {"labels": {"touched": word}}})


def failing(error: Exception) -> StepFunction:
    async def step(*_: Any, **__: Any) -> None:
        raise error

    return step


def break_step(monkeypatch: pytest.MonkeyPatch, function: str, replacement: StepFunction) -> Step:
    """Replaces the function of a step."""
    monkeypatch.setattr(controller, function, replacement)
    return STEPS[function]


def warnings(cluster: "Cluster", reason: str) -> list[str]:
    return [event.note for event in cluster.world.events() if event.reason == reason]


ERRORS = [
    RuntimeError("a surprise"),
    ServerError("etcdserver: request timed out", code=500),
    ExceptionGroup("several", [ValueError("one"), KeyError("two")]),
]


@pytest.mark.sample(7)
@pytest.mark.parametrize("function", STEPS)
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_no_condition_is_stale_after_a_step_failed(
    cluster: "Cluster", phi: Workspace, monkeypatch: pytest.MonkeyPatch, function: str, error: Exception
) -> None:
    """Each condition is evaluated in the failing reconcile, or Unknown with the error."""
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        assert cluster.columns() == ("True", "True", "True")
        step = break_step(monkeypatch, function, failing(error))
        # What the step would have reported is not true any more.
        cluster.world.delete(Node, f"node-{cluster.claim().name}", "")
        cluster.serve(ready=0)
        touch(cluster)
        await cluster.world.advance(20)
        conditions = cluster.conditions()
        own = {*OWN, claim_condition_type(cluster.settings.node_api)}
        assert set(conditions) == own
        for name in own & step.condition_types:
            status, _, message = conditions[name]
            assert f"{step.name} failed: " in message
            assert status in {"Unknown", "False"}, f"{name} is still {status}: {message}"
        for name in ("ResourceReady", "InferenceReady", "WorkspaceReady"):
            assert conditions[name][0] != "True", f"{name} is {conditions[name]}"
        assert len(warnings(cluster, "ReconcileError")) == 1, "one event, not one for each retry"

        monkeypatch.undo()
        await cluster.world.advance(120)
        assert "failed: " not in " ".join(message for _, _, message in cluster.conditions().values())


@pytest.mark.parametrize("function", STEPS)
async def test_a_step_that_fails_in_the_first_reconcile_is_reported(
    cluster: "Cluster", phi: Workspace, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    step = break_step(monkeypatch, function, failing(RuntimeError("at birth")))
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.world.advance(5)
        conditions = cluster.conditions()
        assert any(f"{step.name} failed: RuntimeError: at birth" in message for _, _, message in conditions.values())
        assert {conditions[name][0] for name in ("ResourceReady", "InferenceReady", "WorkspaceReady")} <= {
            "False",
            "Unknown",
        }
        if step is not controller.SURPLUS_STEP:
            is_before_claims = list(STEPS).index(function) <= list(STEPS).index("ensure_claims")
            assert len(cluster.claims()) == (0 if is_before_claims else 1), "nothing is bought after a failed step"


async def test_a_request_that_hangs_is_reported(
    cluster: "Cluster", phi: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: Any) -> None:
        await asyncio.Event().wait()

    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        step = break_step(monkeypatch, "plan_workspace", hang)
        touch(cluster)
        await cluster.world.advance(300)
        assert (
            f"{step.name} failed: TimeoutError: not finished after 240 s" in cluster.conditions()["WorkspaceReady"][2]
        )
        assert cluster.conditions()["WorkspaceReady"][0] == "Unknown"
        monkeypatch.undo()
        await cluster.world.advance(900)
        assert cluster.columns() == ("True", "True", "True")


async def test_a_status_that_cannot_be_computed_is_unknown(
    cluster: "Cluster", phi: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("division by zero")

    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        with monkeypatch.context() as patched:
            patched.setattr("kaito.workspace.steps.status.condition_updates", broken)
            touch(cluster)
            await cluster.world.advance(10)
            for status, reason, message in cluster.conditions().values():
                assert (status, reason) == ("Unknown", "ReconcileError")
                assert "computing the status failed: ZeroDivisionError: division by zero" in message
            assert len(warnings(cluster, "ReconcileError")) == 1
        await cluster.world.advance(600)
        assert cluster.columns() == ("True", "True", "True")


async def test_a_condition_that_becomes_unknown_replaces_the_old_one(phi: Workspace, world: Any) -> None:
    """ModelResolved kept "no node matches the label selector" after the node was labeled."""
    from kaito.workspace.settings import NodeApi, WorkspaceSettings
    from test.unit.workspace.conftest import Cluster

    cluster = Cluster(world, WorkspaceSettings(node_api=NodeApi.BYO))
    cluster.apply(phi.evolve(resource=phi.resource.evolve(instance_type="")))
    async with cluster.controller():
        await world.settle()
        assert "no node matches" in cluster.conditions()["ModelResolved"][2]
        node: dict[str, Any] = {"metadata": {"name": "mine", "labels": {"apps": "phi-3"}}, "status": {"conditions": []}}
        world.put(Node.model_validate(node))
        await world.advance(35)
        assert "no node matches" not in cluster.conditions()["ModelResolved"][2]
        assert cluster.conditions()["ModelResolved"][1] == "UnknownInstanceType"


UNTYPABLE = (
    "failed to create typed patch object (default/workspace-phi-3-mini; apps/v1, Kind=StatefulSet): "
    '.spec.template.spec.containers[name="server"].imagePulPolicy: field not declared in schema'
)


async def test_a_field_that_the_kind_does_not_have_is_a_rejection(cluster: "Cluster", phi: Workspace) -> None:
    """Kube-apiserver answers 500 to server-side apply of a misspelt field."""
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.world.settle()  # the dry run before the claim passes, the server changes its mind later
        cluster.world.fail_next("PATCH", StatefulSet, status=500, message=UNTYPABLE, times=None)
        cluster.join(cluster.claim())
        await cluster.world.advance(30)
        for name in ("InferenceReady", "WorkspaceReady"):
            status, reason, message = cluster.conditions()[name]
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
    """The columns report the cause, also if the template is rejected only when it is rendered."""
    document = phi.to_dict() | {"inference": {"template": template}}
    cluster.apply(Workspace.model_validate(document))
    async with cluster.controller():
        await cluster.world.advance(5)
        for claim in cluster.claims():
            cluster.join(claim)
        await cluster.world.advance(30)
        status, reason, message = cluster.conditions()["InferenceReady"]
        assert status == "False"
        assert reason in {"WorkloadRefused", "InvalidSpec"}
        assert "template" in message
        assert cluster.world.find(StatefulSet, NAME) is None


# ── deletion ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def columns_of_deletion(cluster: "Cluster", name: str, workload: str) -> None:
    conditions = cluster.conditions(name)
    for column in ("ResourceReady", workload, "WorkspaceReady", "WorkspaceSucceeded"):
        assert conditions[column][:2] == ("False", "WorkspaceDeleting")
    assert not [kind for kind, (status, _, _) in conditions.items() if status == "True" and kind != "WorkspaceDeleting"]


async def test_nothing_is_ready_from_the_first_reconcile_of_a_deletion(cluster: "Cluster", phi: Workspace) -> None:
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
    """Also if the clean-up raises, with one event."""
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        cluster.world.fail_next("DELETE", StatefulSet, status=500, message="etcdserver: no leader", times=None)
        cluster.world.delete(Workspace, phi.name)
        await cluster.world.advance(30)
        columns_of_deletion(cluster, NAME, "InferenceReady")
        assert cluster.conditions()["WorkspaceDeleting"] == ("True", "DeletionFailed", "etcdserver: no leader")
        assert warnings(cluster, "DeletionFailed") == ["etcdserver: no leader"]
        cluster.world.heal()
        await cluster.world.advance(60)
        assert cluster.world.find(Workspace, phi.name) is None


@pytest.mark.parametrize(
    "part", ["_delete_workload", "_delete_claims", "_release_preferred_nodes", "_remove_legacy_finalizer"]
)
async def test_a_failure_in_a_deletion_is_reported(
    cluster: "Cluster", phi: Workspace, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    async def broken(*_: Any) -> None:
        raise RuntimeError("a surprise")

    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        monkeypatch.setattr(cleanup, part, broken)
        cluster.world.delete(Workspace, phi.name)
        await cluster.world.advance(10)
        columns_of_deletion(cluster, NAME, "InferenceReady")
        assert cluster.conditions()["WorkspaceDeleting"] == ("True", "DeletionFailed", "RuntimeError: a surprise")
        monkeypatch.undo()
        await cluster.world.advance(60)
        assert cluster.world.find(Workspace, phi.name) is None


async def test_a_cloud_that_rejects_the_deletion_is_reported(cluster: "Cluster", phi: Workspace) -> None:
    """The claim's InstanceTerminating condition reaches the Workspace, with one Warning."""
    words = "The scope cannot perform delete operation because following scope(s) are locked."
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        claim = cluster.claim()
        cluster.world.patch(cluster.kind, claim.name, {"metadata": {"finalizers": [labels.TERMINATION_FINALIZER]}})
        cluster.world.delete(Workspace, phi.name)
        await cluster.world.settle()
        assert cluster.conditions()["WorkspaceDeleting"][1] == "WaitingForClaims"
        drained = {"type": "Drained", "status": "True", "reason": "Drained"}
        refused = {"type": "InstanceTerminating", "status": "False", "reason": "BlockedByCloud", "message": words}
        cluster.set_claim_status(cluster.claim(), drained, refused)
        await cluster.world.advance(60)
        status, reason, message = cluster.conditions()["WorkspaceDeleting"]
        assert (status, reason) == ("True", "CloudRefusesDeletion")
        assert words in message
        assert claim.name in message
        assert len(warnings(cluster, "CloudRefusesDeletion")) == 1
        columns_of_deletion(cluster, NAME, "InferenceReady")


async def test_a_slow_deletion_is_not_a_rejection(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        cluster.world.patch(
            cluster.kind, cluster.claim().name, {"metadata": {"finalizers": [labels.TERMINATION_FINALIZER]}}
        )
        cluster.world.delete(Workspace, phi.name)
        await cluster.world.settle()
        draining = {"type": "Drained", "status": "Unknown", "reason": "Draining", "message": "2 pods have to leave"}
        cluster.set_claim_status(cluster.claim(), draining)
        await cluster.world.advance(6)
        status, reason, message = cluster.conditions()["WorkspaceDeleting"]
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
    assert cluster.conditions()["JobStarted"][0] == "True"


@pytest.mark.sample(3)
@pytest.mark.parametrize("function", STEPS)
async def test_no_condition_of_a_tuning_workspace_is_stale_after_a_step_failed(
    cluster: "Cluster", phi: Workspace, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    async with cluster.controller():
        await until_tuning(cluster, phi)
        step = break_step(monkeypatch, function, failing(RuntimeError("a surprise")))
        cluster.world.delete(Node, f"node-{cluster.claim().name}", "")
        cluster.world.patch(Job, NAME, {"status": {"active": 0, "ready": 0}}, subresource="status")
        touch(cluster)
        await cluster.world.advance(20)
        conditions = cluster.conditions()
        assert "InferenceReady" not in conditions
        for name in ("ResourceReady", "JobStarted", "WorkspaceSucceeded", "WorkspaceReady"):
            assert conditions[name][0] != "True", f"{name} is {conditions[name]}"
        for name in set(conditions) & step.condition_types:
            assert f"{step.name} failed: RuntimeError: a surprise" in conditions[name][2]
        assert len(warnings(cluster, "ReconcileError")) == 1


async def test_a_tuning_workspace_is_not_ready_while_it_is_deleted(cluster: "Cluster", phi: Workspace) -> None:
    async with cluster.controller():
        await until_tuning(cluster, phi)
        finalizers = {"metadata": {"finalizers": [labels.TERMINATION_FINALIZER]}}
        cluster.world.patch(cluster.kind, cluster.claim().name, finalizers)
        cluster.world.delete(Workspace, NAME)
        await cluster.world.settle()
        columns_of_deletion(cluster, NAME, "JobStarted")
        assert cluster.workspace().status.state == "Pending"
        assert "InferenceReady" not in cluster.conditions()
