"""InferenceSets on divided GPUs: a Workspace of the set has a copy on every slice of one node."""

from datetime import timedelta
from typing import Any

import pytest

from kaito.api import InferenceSet, Workspace, labels
from kaito.models.copies import copies_per_workspace
from kaito.prices.book import PriceBook
from kaito.runtime.kinds import StatefulSet
from kaito.runtime.testing.world import START
from kaito.runtime.webhook import Admission
from kaito.workspace.inference_sets.admission import inference_set_webhook, validate_inference_set
from kaito.workspace.inference_sets.children import Child, child_workspace
from kaito.workspace.inference_sets.rollout import Bounds, NodeBudget, decide
from kaito.workspace.scaling.decision import Policy, decide as decide_copies
from kaito.workspace.scaling.load import Observation
from kaito.workspace.settings import NodeApi, WorkspaceSettings
from test.unit.workspace.inference_sets.conftest import Sets, inference_set

SIZE = "Standard_NC24ads_A100_v4"
TWO_GPUS = "Standard_NC48ads_A100_v4"


def template(profile: str = "1g.10gb", **resource: Any) -> dict[str, Any]:
    partition = {"mode": "mig", "profile": profile}
    return {
        "resource": {"instanceType": SIZE, "partition": partition, **resource},
        "inference": {"preset": {"name": "qwen3.5-2b"}},
    }


def problems(given: InferenceSet, settings: WorkspaceSettings) -> list[str]:
    return [str(each) for each in validate_inference_set(given, None, settings) if each.severity == "error"]


@pytest.mark.parametrize(
    ("resource", "copies"),
    [
        ({}, 7),
        ({"profile": "3g.40gb"}, 2),
        ({"instanceType": TWO_GPUS}, 14),
        ({"instanceType": "", "instanceTypes": ["Standard_NC6s_v3", SIZE]}, 7),
        ({"partition": None}, 1),
        ({"instanceType": "", "partition": {"mode": "accelerator", "count": 2}}, 1),
        ({"instanceType": "unknown"}, 1),
    ],
)
def test_a_workspace_has_a_copy_on_every_slice_of_a_node(resource: dict[str, Any], copies: int) -> None:
    given = inference_set(template=template(**resource))
    child = child_workspace(given, "phi-0")
    assert (copies_per_workspace(given), child.spec.replicas, child.resource.count) == (copies, copies, copies)


def test_a_set_on_divided_gpus_is_accepted(settings: WorkspaceSettings) -> None:
    assert problems(inference_set(template=template()), settings) == []


def test_existing_nodes_have_one_copy_of_each_workspace() -> None:
    given = inference_set(template=template(instanceType=""))
    assert copies_per_workspace(given) == 1
    assert problems(given, WorkspaceSettings(node_api=NodeApi.BYO)) == []


def test_alternatives_must_have_the_same_number_of_slices(settings: WorkspaceSettings) -> None:
    given = inference_set(template=template(instanceType="", instanceTypes=[TWO_GPUS, SIZE]))
    (found,) = problems(given, settings)
    assert found == (
        "spec.template.resource.instanceTypes: have different numbers of slices with the profile 1g.10gb "
        f"({TWO_GPUS} 14, {SIZE} 7), and each Workspace of the set has a copy on every slice of its node: name "
        "instance types with the same number"
    )


async def test_admission_counts_nodes_and_not_copies() -> None:
    webhook = inference_set_webhook(WorkspaceSettings(region="eastus"), PriceBook())
    admission = Admission("CREATE", inference_set(template=template(), replicas=2, nodeCountLimit=2), None)
    assert webhook.validate is not None
    result = webhook.validate(admission)
    if result is not None:
        await result
    assert admission.problems == []
    (warning,) = admission.warnings
    assert warning.startswith(f"spec: the plan is 2 nodes of {SIZE}: 7.35 USD per hour")


async def test_each_workspace_fills_one_node_and_the_limit_counts_nodes(sets: Sets) -> None:
    sets.put(template=template(), replicas=3, nodeCountLimit=2)
    async with sets.controller():
        await sets.world.settle()
        assert sets.names() == ["phi-0", "phi-1"]
        assert [each.status.target_node_count for each in sets.children().values()] == [1, 1]
        assert [claim.annotations[labels.GPU_INSTANCE_PROFILE] for claim in sets.claims()] == ["MIG1g"] * 2
        for claim in sets.claims():
            sets.join(claim, gpus="7")
        await sets.world.settle()
        for name in sets.names():
            assert sets.world.get(StatefulSet, name).spec.replicas == 7
            sets.serve(name)
        await sets.world.settle()
        assert sets.condition()[1] == "NodeLimitReached"
        assert sets.condition()[2].startswith("2 of 3 workspaces serve")

        sets.scale(1)
        await sets.world.advance(120)
        assert sets.names() == ["phi-0"]
        assert sets.condition() == ("True", "InferenceSetReady", "1 of 1 workspaces serve")


async def test_a_workspace_with_some_ready_copies_is_replaced_after_the_new_one_serves(sets: Sets) -> None:
    sets.put(template=template(), replicas=1)
    async with sets.controller():
        await sets.world.settle()
        sets.join(sets.claims()[0], gpus="7")
        await sets.world.settle()
        sets.serve("phi-0", ready=6)
        await sets.world.settle()
        assert sets.condition()[0] == "False"
        sets.change({"template": template(profile="2g.20gb")})
        await sets.world.settle()
        assert sets.names() == ["phi-0", "phi-1"]
        assert sets.world.get(Workspace, "phi-1").spec.replicas == 3
        (new,) = [claim for claim in sets.claims() if claim.annotations[labels.GPU_INSTANCE_PROFILE] == "MIG2g"]
        sets.join(new, gpus="3")
        await sets.world.settle()
        sets.serve("phi-1")
        await sets.world.advance(120)
        assert sets.names() == ["phi-1"]


def test_copies_that_are_ready_answer_although_others_are_not() -> None:
    partial = Child(name="a", number=0, change="replace", is_partial=True)
    broken = Child(name="b", number=1, change="replace")
    decision = decide([partial, broken], 1, Bounds(), NodeBudget())
    assert (decision.create, decision.delete) == (0, ("b",))
    decision = decide([partial], 1, Bounds(), NodeBudget())
    assert (decision.create, decision.delete) == (1, ())
    decision = decide([partial, Child(name="c", number=2, is_serving=True)], 1, Bounds(), NodeBudget())
    assert decision.delete == ("a",)


def seen(requests: float, copies: int) -> list[Observation]:
    times = [START - timedelta(seconds=700), START]
    return [Observation(at=at, copies=copies, reported=copies, requests=requests) for at in times]


@pytest.mark.parametrize(("requests", "replicas", "wanted"), [(140, 2, 2), (141, 2, 3), (70, 2, 1), (900, 2, 3)])
def test_targets_are_those_of_a_copy_and_steps_are_workspaces(requests: float, replicas: int, wanted: int) -> None:
    policy = Policy(least=1, most=9, requests=10, copies_per_replica=7)
    assert decide_copies(replicas, seen(requests, 14), policy, now=START).replicas == wanted


def test_a_ratio_is_reached_by_whole_workspaces() -> None:
    policy = Policy(least=1, most=9, cache_usage=0.5, copies_per_replica=7)
    history = [Observation(at=each.at, copies=14, reported=14, requests=0, cache_usage=0.6) for each in seen(0, 14)]
    assert decide_copies(2, history, policy, now=START).replicas == 3
