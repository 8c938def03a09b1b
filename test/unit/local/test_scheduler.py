"""The local scheduler's fit rules."""

import pytest

from kaito.local.scheduler import problem_of, tolerated
from kaito.runtime.kinds import (
    Affinity,
    Container,
    Node,
    NodeAffinity,
    NodeSelector,
    NodeSelectorRequirement,
    NodeSelectorTerm,
    Pod,
    PodSpec,
    ResourceRequirements,
    Toleration,
)
from kaito.runtime.kinds.core import NodeCondition, NodeSpec, NodeStatus, Taint
from kaito.runtime.meta import ObjectMeta, Quantity

GPU = "nvidia.com/gpu"
SKU_TAINT = Taint(key="sku", value="gpu", effect="NoSchedule")
TOLERATION = Toleration(key="sku", operator="Equal", value="gpu", effect="NoSchedule")


def node(
    *, ready: str = "True", taints: tuple[Taint, ...] = (SKU_TAINT,), gpus: str = "1", unschedulable: bool = False
) -> Node:
    return Node(
        metadata=ObjectMeta(name="n1", labels={"apps": "phi-3"}),
        spec=NodeSpec(taints=list(taints), unschedulable=unschedulable),
        status=NodeStatus(
            conditions=[NodeCondition(type="Ready", status=ready)],
            allocatable={GPU: Quantity(gpus)} if gpus else {},
        ),
    )


def pod(name: str = "p", *, app: str = "phi-3", tolerations: tuple[Toleration, ...] = (TOLERATION,)) -> Pod:
    wanted = NodeSelectorTerm(match_expressions=[NodeSelectorRequirement(key="apps", operator="In", values=[app])])
    required = NodeSelector(node_selector_terms=[wanted])
    return Pod(
        metadata=ObjectMeta(name=name, namespace="default"),
        spec=PodSpec(
            containers=[Container(name="c", resources=ResourceRequirements(limits={GPU: Quantity("1")}))],
            tolerations=list(tolerations),
            affinity=Affinity(node_affinity=NodeAffinity(required_during_scheduling_ignored_during_execution=required)),
        ),
    )


def test_a_fitting_node_has_no_problem() -> None:
    assert problem_of(pod(), node(), []) is None


@pytest.mark.parametrize(
    ("wanted", "there", "problem"),
    [
        (pod(), node(unschedulable=True), "node(s) were unschedulable"),
        (pod(), node(ready="False"), "node(s) were not ready"),
        (pod(tolerations=()), node(), "node(s) had untolerated taint"),
        (pod(app="other"), node(), "node(s) didn't match Pod's node affinity/selector"),
        (pod(), node(gpus=""), f"Insufficient {GPU}"),
    ],
)
def test_a_node_that_does_not_fit_says_why(wanted: Pod, there: Node, problem: str) -> None:
    assert problem_of(wanted, there, []) == problem


def test_a_gpu_is_given_out_once() -> None:
    running = pod("other").evolve(spec=pod("other").spec.evolve(node_name="n1"))
    assert problem_of(pod(), node(), [running]) == f"Insufficient {GPU}"


def test_a_wish_taint_never_forbids() -> None:
    assert tolerated(Taint(key="x", effect="PreferNoSchedule"), [])
