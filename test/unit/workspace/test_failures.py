"""Failures are reported in the columns, and recover automatically with their cause."""

from typing import TYPE_CHECKING, Any

import pytest

from kaito.api import Workspace, labels
from kaito.runtime.kinds import Node, Pod, Service, StatefulSet
from kaito.workspace.status import claim_condition_type
from kaito.workspace.steps.status import NEW_WORKLOAD_SECONDS

if TYPE_CHECKING:
    from test.unit.workspace.conftest import Cluster


async def test_a_quota_failure_is_reported_and_recovers(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.world.settle()
        claim = cluster.claim()
        message = "quota exceeded: 0 of 6 cores left in standardNCSv3Family"
        cluster.set_claim_status(
            claim,
            {"type": claim.stages.launched, "status": "False", "reason": "QuotaExceeded", "message": message},
            {"type": "Ready", "status": "False", "reason": "UnhealthyDependents"},
        )
        await cluster.world.settle()
        assert cluster.columns() == ("False", "False", "False")
        conditions = cluster.conditions()
        for name in (claim_condition_type(cluster.settings.node_api), "ResourceReady", "WorkspaceReady"):
            assert conditions[name][1] == "QuotaExceeded"
            assert message in conditions[name][2]

        await cluster.world.advance(600)
        assert len(cluster.claims()) == 1, "one claim in flight, however long the quota is missing"
        cluster.join(claim)
        await cluster.world.settle()
        cluster.serve()
        await cluster.world.settle()
        assert cluster.columns() == ("True", "True", "True")


async def test_a_claim_that_never_launches_is_replaced_after_a_growing_pause(
    cluster: "Cluster", phi: Workspace
) -> None:
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.world.settle()
        names, counts = {cluster.claim().name}, list[int]()
        for _ in range(8):
            await cluster.world.advance(300)
            counts.append(len(cluster.claims()))
            names |= {claim.name for claim in cluster.claims()}
        assert max(counts) == 1
        assert len(names) >= 2
        reasons = {event.reason for event in cluster.world.events()}
        assert f"{cluster.kind.kind}GivenUp" in reasons


async def test_a_claim_deleted_by_a_user_is_replaced_after_the_backoff(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        first = cluster.claim()
        cluster.world.delete(cluster.kind, first.name)
        cluster.world.delete(Node, f"node-{first.name}", "")
        await cluster.world.settle()
        assert cluster.claims() == []
        assert cluster.conditions()["ResourceReady"][1] == "ReplacementPending"
        await cluster.world.advance(29)
        assert cluster.claims() == []
        await cluster.world.advance(2)
        second = cluster.claim()
        assert second.name != first.name
        cluster.join(second)
        await cluster.world.settle()
        assert cluster.columns()[0] == "True"


async def test_a_rejected_claim_is_reported_and_retried(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(phi)
    cluster.world.fail_next("POST", cluster.kind, status=403, message="denied by the spending policy", times=3)
    async with cluster.controller():
        await cluster.world.settle()
        assert "denied by the spending policy" in cluster.conditions()["ResourceReady"][2]
        assert cluster.conditions()["ResourceReady"][1] == "NodeClaimCreateFailed"
        await cluster.world.advance(10)
        assert len(cluster.claims()) == 1
        refusals = [e for e in cluster.world.events() if e.reason == f"{cluster.kind.kind}CreationFailed"]
        assert len(refusals) == 1, "an event for the news, not for every retry"


async def test_a_node_not_ready_and_back(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        generation = cluster.world.get(StatefulSet, phi.name).metadata.generation
        node = f"node-{cluster.claim().name}"
        cluster.node_ready(node, "False", "container runtime is down")
        await cluster.world.settle()
        assert cluster.columns() == ("False", "False", "False")
        assert node in cluster.conditions()["ResourceReady"][2]
        assert "container runtime is down" in cluster.conditions()["ResourceReady"][2]
        assert cluster.workspace().status.state == "NotReady"

        await cluster.world.advance(300)
        assert len(cluster.claims()) == 1, "no new claim before the unhealthy timeout"
        cluster.node_ready(node, "True")
        await cluster.world.settle()
        assert cluster.columns() == ("True", "True", "True")
        assert cluster.world.get(StatefulSet, phi.name).metadata.generation == generation


async def test_a_node_that_stays_not_ready_is_replaced(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        first = cluster.claim()
        cluster.node_ready(f"node-{first.name}", "Unknown")
        await cluster.world.advance(601)
        assert first.name not in [claim.name for claim in cluster.claims()]
        cluster.world.delete(Node, f"node-{first.name}", "")
        await cluster.world.advance(60)
        assert cluster.claim().name != first.name


async def test_a_cordoned_node_does_not_count(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        cluster.world.patch(Node, f"node-{cluster.claim().name}", {"spec": {"unschedulable": True}})
        await cluster.world.settle()
        assert cluster.columns() == ("False", "True", "False")
        assert "cordoned" in cluster.conditions()["ResourceReady"][2]


async def test_gpus_missing_on_a_ready_node(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.world.settle()
        node = cluster.join(cluster.claim(), gpus="0")
        await cluster.world.settle()
        assert cluster.conditions()["NodesReady"][1] == "NodePluginsNotReady"
        assert cluster.world.get(Node, node.name, "").labels[labels.ACCELERATOR] == "nvidia"
        assert cluster.world.find(StatefulSet, phi.name) is None
        gpus = {"status": {"capacity": {labels.NVIDIA_GPU: "1"}}}
        cluster.world.patch(Node, node.name, gpus, subresource="status")
        await cluster.world.advance(NEW_WORKLOAD_SECONDS)
        assert cluster.columns()[0] == "True"
        assert cluster.world.find(StatefulSet, phi.name) is not None


async def test_a_crash_loop_is_reported_with_its_termination_message_and_recovers(
    cluster: "Cluster", phi: Workspace
) -> None:
    world = cluster.world
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        crashing: dict[str, Any] = {
            "name": phi.name,
            "restartCount": 3,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 1, "message": "CUDA out of luck"}},
        }
        world.put(
            Pod.model_validate(
                {
                    "metadata": {"name": f"{phi.name}-0", "labels": {labels.WORKSPACE: phi.name}},
                    "spec": {
                        "nodeName": f"node-{cluster.claim().name}",
                        "containers": [{"name": phi.name, "image": "x"}],
                    },
                    "status": {"phase": "Running", "containerStatuses": [crashing]},
                }
            )
        )
        cluster.serve(ready=0)
        await world.settle()
        assert cluster.columns() == ("True", "False", "False")
        assert cluster.conditions()["InferenceReady"][1] == "ContainerCrashLoopBackOff"
        assert "CUDA out of luck" in cluster.conditions()["WorkspaceReady"][2]
        cluster.serve()
        await world.settle()
        assert cluster.columns() == ("True", "True", "True")


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        ({"inference": {"preset": {"name": "phi-3-mini-4k-instrukt"}}}, "UnknownPreset", "phi-3-mini-4k-instruct"),
        ({"resource": {"instanceType": "Standard_NC6s_v9"}}, "UnknownInstanceType", "Standard_NC6s_v9"),
        ({"resource": {"instanceType": "Standard_D4s_v5"}}, "UnknownInstanceType", "has no GPU"),
        ({"inference": {"preset": {"name": "phi-3-medium-4k-instruct"}}}, "InstanceTypeTooSmall", "too small"),
        ({"inference": {"preset": {"name": "phi-3-mini-4k-instruct"}, "config": "mine"}}, "ConfigNotFound", "mine"),
    ],
)
async def test_input_that_admission_rejects_is_reported_and_creates_no_claim(
    cluster: "Cluster", phi: Workspace, change: dict[str, Any], reason: str, words: str
) -> None:
    document = phi.to_dict()
    for part, values in change.items():
        document[part] = document[part] | values
    cluster.apply(Workspace.model_validate(document))
    async with cluster.controller():
        await cluster.world.settle()
        assert cluster.columns() == ("False", "False", "False")
        for name in ("ResourceReady", "InferenceReady", "WorkspaceReady"):
            assert cluster.conditions()[name][1] == reason
            assert words in cluster.conditions()[name][2]
        assert cluster.claims() == []


async def test_a_stateful_set_of_another_owner_is_left_unchanged(cluster: "Cluster", phi: Workspace) -> None:
    theirs = {
        "metadata": {"name": phi.name},
        "spec": {
            "replicas": 3,
            "serviceName": "theirs",
            "selector": {"matchLabels": {"app": "theirs"}},
            "template": {
                "metadata": {"labels": {"app": "theirs"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        },
    }
    cluster.world.put(StatefulSet.model_validate(theirs))
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.world.settle()
        assert cluster.claims() == []  # nothing could run on a node
        assert cluster.conditions()["ResourceReady"][1] == "NameConflict"
        assert cluster.conditions()["InferenceReady"][1] == "NameConflict"
        assert cluster.world.get(StatefulSet, phi.name).spec.replicas == 3

        cluster.world.delete(StatefulSet, phi.name)
        await cluster.world.advance(11)
        cluster.join(cluster.claim())


async def test_what_could_not_be_looked_at_keeps_its_last_verdict(cluster: "Cluster", phi: Workspace) -> None:
    """Errors of the API server do not change the workload's conditions."""
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        cluster.world.fail_next("PATCH", Service, status=500, times=None)
        annotations = {"annotations": {labels.ENABLE_LOAD_BALANCER: "true"}}
        cluster.world.patch(Workspace, phi.name, {"metadata": annotations})
        await cluster.world.advance(5)
        assert cluster.columns() == ("True", "True", "True")


async def test_observations_are_reported_although_a_write_failed(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        cluster.world.fail_next("PATCH", Node, status=500, times=None)
        gone = {"status": {"capacity": {labels.NVIDIA_GPU: "0"}}}
        cluster.world.patch(Node, f"node-{cluster.claim().name}", gone, subresource="status")
        await cluster.world.advance(5)
        assert cluster.columns()[0] == "False"
        assert cluster.conditions()["NodesReady"][1] == "NodePluginsNotReady"


async def test_a_rejected_workload_is_reported_with_the_servers_message(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.world.settle()
        cluster.world.fail_next("PATCH", StatefulSet, status=403, message="exceeded quota: team-a", times=3)
        cluster.join(cluster.claim())
        await cluster.world.settle()
        assert cluster.conditions()["InferenceReady"][1] == "WorkloadRefused"
        assert "exceeded quota: team-a" in cluster.conditions()["WorkspaceReady"][2]
        await cluster.world.advance(10)
        assert cluster.world.find(StatefulSet, phi.name) is not None
