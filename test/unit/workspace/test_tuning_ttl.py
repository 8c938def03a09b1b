"""`tuning.ttlSecondsAfterFinished`: the nodes of an ended run are given back; the run is not repeated."""

from typing import TYPE_CHECKING, Any, Literal

import pytest

from kaito.api import Workspace
from kaito.runtime.kinds import Job, Secret
from kaito.runtime.meta import ObjectMeta, format_time

if TYPE_CHECKING:
    from test.unit.workspace.conftest import Cluster

NAME = "tune"


def tuning(phi: Workspace, ttl: int | None) -> Workspace:
    spec: dict[str, Any] = {
        "preset": {"name": "phi-3-mini-128k-instruct"},
        "method": "qlora",
        "input": {"urls": ["https://data.example/train.parquet"]},
        "output": {"image": "registry.example/tuned:0.0.1", "imagePushSecret": "push"},
    }
    document = phi.to_dict() | {"tuning": spec | ({} if ttl is None else {"ttlSecondsAfterFinished": ttl})}
    document["metadata"] |= {"name": NAME}
    del document["inference"]
    return Workspace.model_validate(document)


@pytest.fixture
async def running(cluster: "Cluster") -> "Cluster":
    push = Secret(metadata=ObjectMeta(name="push"), type="kubernetes.io/dockerconfigjson")
    cluster.world.put(push.with_value(".dockerconfigjson", b'{"auths": {}}'))
    return cluster


async def end(cluster: "Cluster", condition: str = "Complete") -> None:
    """Starts the run, and ends it."""
    await cluster.world.settle()
    cluster.join(cluster.claim())
    await cluster.world.settle()
    now = format_time(cluster.world.now)
    ended = {"type": condition, "status": "True", "reason": condition, "lastTransitionTime": now}
    cluster.world.patch(Job, NAME, {"status": {"conditions": [ended], "active": 0}}, subresource="status")
    await cluster.world.settle()


def reason(cluster: "Cluster") -> str:
    return cluster.conditions(NAME)["ResourceReady"][1]


@pytest.mark.parametrize(("condition", "state"), [("Complete", "Succeeded"), ("Failed", "Failed")])
async def test_nodes_are_given_back_after_the_time(
    running: "Cluster", phi: Workspace, condition: Literal["Complete", "Failed"], state: str
) -> None:
    running.apply(tuning(phi, 600))
    async with running.controller():
        await end(running, condition)
        await running.world.advance(590)
        assert len(running.claims()) == 1
        await running.world.advance(20)
        assert running.claims() == []
        found = running.workspace(NAME)
        assert (found.status.state, found.status.claims) == (state, [])
        assert reason(running) == "NodesReleased"
        events = [event for event in running.world.events() if event.reason == "NodesReleased"]
        assert [(event.type, "ttlSecondsAfterFinished is 600" in event.note) for event in events] == [("Normal", True)]
        warnings = {event.reason for event in running.world.events() if event.type == "Warning"}
        assert "ResourcesNotReady" not in warnings
        await running.world.advance(7200)
        assert running.claims() == [], "a node that was given back is not a lost one"
        assert running.world.get(Job, NAME).has_condition(condition), "without the Job, the run would be repeated"


async def test_without_the_field_the_nodes_stay(running: "Cluster", phi: Workspace) -> None:
    running.apply(tuning(phi, None))
    async with running.controller():
        await end(running)
        await running.world.advance(4 * 3600)
        assert len(running.claims()) == 1
        assert running.conditions(NAME)["ResourceReady"][0] == "True"


async def test_the_field_can_be_set_after_the_end_and_does_not_repeat_the_run(
    running: "Cluster", phi: Workspace
) -> None:
    running.apply(tuning(phi, None))
    async with running.controller():
        await end(running)
        uid = running.world.get(Job, NAME).uid
        running.world.patch(Workspace, NAME, {"tuning": {"ttlSecondsAfterFinished": 0}})
        await running.world.settle()
        assert running.claims() == []
        assert running.world.get(Job, NAME).uid == uid


async def test_a_restart_keeps_the_time(running: "Cluster", phi: Workspace) -> None:
    running.apply(tuning(phi, 600))
    async with running.controller():
        await end(running)
    await running.world.advance(900)  # no controller
    async with running.controller():
        await running.world.settle()
        assert running.claims() == []


async def test_changed_inputs_start_another_run_on_a_new_node(running: "Cluster", phi: Workspace) -> None:
    running.apply(tuning(phi, 0))
    async with running.controller():
        await end(running)
        assert running.claims() == []
        first = running.world.get(Job, NAME).uid
        running.world.patch(Workspace, NAME, {"tuning": {"output": {"image": "registry.example/tuned:0.0.2"}}})
        await running.world.advance(40)
        running.join(running.claim())
        await running.world.advance(20)
        assert running.world.get(Job, NAME).uid != first
        assert len(running.claims()) == 1


async def test_a_running_tuning_keeps_its_node(running: "Cluster", phi: Workspace) -> None:
    running.apply(tuning(phi, 0))
    async with running.controller():
        await running.world.settle()
        running.join(running.claim())
        await running.world.settle()
        running.world.patch(Job, NAME, {"status": {"active": 1, "ready": 1}}, subresource="status")
        await running.world.advance(3600)
        assert len(running.claims()) == 1
        assert reason(running) == "ResourcesReady"
