"""`kaito explain` of an InferenceSet, on the in-memory API server: conditions, Workspaces that wait, and formats."""

from typing import Any

import pytest

from kaito.api import InferenceSet, Workspace, labels
from kaito.apiserver import Fault
from kaito.cli.explain.command import explain
from kaito.cli.explain.inference_set import SetDiagnosis, render_set, set_data
from kaito.cli.explain.reader import SituationReader, WorkspaceMissing
from kaito.diagnosis import Diagnosis
from kaito.planning.style import Style
from kaito.runtime import Client
from kaito.runtime.errors import Forbidden
from kaito.runtime.testing import World
from test.unit.workspace.inference_sets.conftest import inference_set

SIZE = "Standard_NC6s_v3"


def condition(kind: str, status: str, reason: str, message: str) -> dict[str, str]:
    moment = {"lastTransitionTime": "2030-01-01T00:00:00Z"}
    return {"type": kind, "status": status, "reason": reason, "message": message, **moment}


class Sets:
    """A cluster with a set and its Workspaces."""

    def __init__(self, world: World, replicas: int) -> None:
        self.world = world
        self.set = world.put(inference_set(replicas=replicas))

    def report(self, *found: dict[str, str]) -> None:
        self.world.patch(InferenceSet, "phi", {"status": {"conditions": list(found)}}, subresource="status")

    def workspace(self, name: str, *, ready: bool) -> None:
        document: dict[str, Any] = {
            "metadata": {"name": name, "namespace": "default", "labels": {labels.CREATED_BY_INFERENCESET: "phi"}},
            "resource": {"instanceType": SIZE, "labelSelector": {"matchLabels": {"apps": "phi"}}},
            "inference": {"preset": {"name": "phi-3-mini-4k-instruct"}},
        }
        self.world.put(Workspace.model_validate(document))
        state = condition("WorkspaceReady", str(ready), "Ready" if ready else "QuotaExceeded", "no cores are left")
        self.world.patch(Workspace, name, {"status": {"conditions": [state]}}, subresource="status")

    async def explain(self, name: str = "phi", *, is_set: bool = False) -> Diagnosis | SetDiagnosis:
        reader = SituationReader(Client(self.world.transport(), field_manager="kaito-explain"))
        return await explain(reader, name, "default", is_set=is_set, clock=self.world.clock)


async def test_workspaces_that_wait_are_explained_below_the_set(world: World) -> None:
    sets = Sets(world, replicas=6)
    sets.report(condition("InferenceSetReady", "False", "WorkspacesNotReady", "1 of 6 workspaces ready"))
    for number in range(6):
        sets.workspace(f"phi-{number}", ready=number == 0)
    found = await sets.explain()
    assert isinstance(found, SetDiagnosis)
    assert not found.is_healthy
    text = render_set(found, Style(), now=world.now, width=100)
    lines = text.splitlines()
    assert lines[0] == "InferenceSet default/phi: 1 of 6 Workspaces ready"
    assert "cause    InferenceSetReady: WorkspacesNotReady: 1 of 6 workspaces ready" in lines
    assert "note     2 further Workspaces are not ready: kaito explain phi-4 -n default" in lines
    assert [line.partition(":")[0] for line in lines if line.startswith("Workspace ")] == [
        "Workspace default/phi-1",
        "Workspace default/phi-2",
        "Workspace default/phi-3",
    ]
    data = set_data(found)
    assert (data["healthy"], len(data["workspaces"]), len(data["notReady"])) == (False, 3, 5)


async def test_a_set_that_is_ready(world: World) -> None:
    sets = Sets(world, replicas=1)
    sets.report(condition("InferenceSetReady", "True", "Ready", "1 of 1 workspaces ready"))
    sets.workspace("phi-0", ready=True)
    found = await sets.explain(is_set=True)
    assert isinstance(found, SetDiagnosis)
    assert found.is_healthy
    assert render_set(found, Style(), now=world.now, width=100) == "InferenceSet default/phi: 1 of 1 Workspaces ready\n"


async def test_a_missing_workspace_is_reported_to_a_user_who_may_not_read_sets(world: World) -> None:
    sets = Sets(world, replicas=1)
    sets.workspace("phi-0", ready=True)
    world.server.inject(Fault(kind="InferenceSet", times=None, status=403))
    with pytest.raises(WorkspaceMissing, match="did you mean phi-0"):
        await sets.explain("phi-00")
    with pytest.raises(Forbidden):
        await sets.explain("phi-00", is_set=True)


async def test_a_workspace_has_precedence_and_a_missing_set_is_named(world: World) -> None:
    sets = Sets(world, replicas=1)
    sets.workspace("phi", ready=False)
    assert isinstance(await sets.explain(), Diagnosis)
    assert isinstance(await sets.explain(is_set=True), SetDiagnosis)
    with pytest.raises(WorkspaceMissing, match="InferenceSet default/no does not exist"):
        await sets.explain("no", is_set=True)
    with pytest.raises(WorkspaceMissing, match="Workspace default/no does not exist"):
        await sets.explain("no")
