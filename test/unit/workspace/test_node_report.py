"""Which nodes count and what is wrong with the others: one fault at a time, from a node that has none."""

from typing import Any

import pytest

from kaito.api import Workspace
from kaito.runtime.kinds import Node
from kaito.runtime.meta import Quantity
from kaito.workspace.nodes import NodesReport, evaluate_nodes, find_free_preferred_nodes, unused_preferred_nodes
from kaito.workspace.plan import Hardware
from kaito.workspace.settings import NodeApi

ONE_GPU = Hardware(copies=1, instance_type="Standard_NC6s_v3", gpus=1, disk=Quantity("87Gi"))
READY = {"type": "Ready", "status": "True", "reason": "KubeletReady"}


def node(
    name: str = "gpu-0",
    *,
    gpus: str = "1",
    conditions: list[dict[str, str]] | None = None,
    labels: dict[str, str] | None = None,
    taints: list[dict[str, str]] | None = None,
    deleted: bool = False,
    **spec: Any,
) -> Node:
    given = {
        "apps": "phi-3",
        "kaito.sh/workspace": "workspace-phi-3-mini",
        "kaito.sh/workspacenamespace": "default",
        "node.kubernetes.io/instance-type": "Standard_NC6s_v3",
    }
    return Node.model_validate(
        {
            "metadata": {
                "name": name,
                "labels": {key: value for key, value in (given | (labels or {})).items() if value},
                "deletionTimestamp": "2030-01-01T00:00:00Z" if deleted else None,
            },
            "spec": {"taints": taints or [], **spec},
            "status": {
                "capacity": {"nvidia.com/gpu": gpus},
                "conditions": [READY] if conditions is None else conditions,
            },
        }
    )


def evaluated(
    phi: Workspace, *nodes: Node, hardware: Hardware = ONE_GPU, node_api: NodeApi = NodeApi.MACHINE
) -> NodesReport:
    return evaluate_nodes(phi, hardware, nodes, node_api=node_api)


def not_ready(reason: str = "", message: str = "") -> list[dict[str, str]]:
    return [{"type": "Ready", "status": "False", "reason": reason, "message": message}]


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        (node(deleted=True), "is being deleted"),
        (node(conditions=[]), "has not reported its state yet"),
        (node(conditions=not_ready()), "is not Ready"),
        (node(conditions=not_ready("KubeletDown")), "is not Ready (KubeletDown)"),
        (node(conditions=not_ready("KubeletDown", "no heartbeat")), "is not Ready (KubeletDown: no heartbeat)"),
        (node(conditions=not_ready("", "no heartbeat")), "is not Ready (no heartbeat)"),
        (node(conditions=[READY | {"status": "Unknown", "reason": ""}]), "is not Ready"),
        (node(unschedulable=True), "is cordoned"),
        (node(taints=[{"key": "team", "value": "a", "effect": "NoSchedule"}]), "has the taint team=a:NoSchedule"),
        (node(taints=[{"key": "team", "effect": "NoExecute"}]), "has the taint team:NoExecute"),
        (node(taints=[{"key": "sku", "value": "cpu", "effect": "NoSchedule"}]), "has the taint sku=cpu:NoSchedule"),
        (node(taints=[{"key": "sku", "value": "gpu", "effect": "NoExecute"}]), "has the taint sku=gpu:NoExecute"),
        (
            node(labels={"node.kubernetes.io/instance-type": "Standard_NC12s_v3"}),
            "is of instance type Standard_NC12s_v3 instead of Standard_NC6s_v3",
        ),
        (
            node(labels={"node.kubernetes.io/instance-type": ""}),
            "is of instance type unknown instead of Standard_NC6s_v3",
        ),
    ],
)
def test_a_node_that_cannot_be_used_is_named_with_its_fault(phi: Workspace, found: Node, fault: str) -> None:
    report = evaluated(phi, found)
    assert report.faults == (f"node gpu-0 {fault}",)
    assert (report.names, report.usable, report.gpu_faults, report.is_sufficient) == (("gpu-0",), (), (), False)


@pytest.mark.parametrize(
    "found",
    [
        node(),
        node(gpus="2"),
        node(labels={"node.kubernetes.io/instance-type": "standard_nc6s_v3"}),
        node(labels={"node.kubernetes.io/instance-type": "Standard_NC12s_v3", "kaito.sh/preferred-node": "true"}),
        node(taints=[{"key": "team", "value": "a", "effect": "PreferNoSchedule"}]),
        node(taints=[{"key": "sku", "value": "gpu", "effect": "NoSchedule"}]),
        node(taints=[{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]),
        node(taints=[{"key": "kubernetes.azure.com/scalesetpriority", "value": "spot", "effect": "NoSchedule"}]),
        node(taints=[{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]),
        node(taints=[{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]),
        node(taints=[{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]),
    ],
)
def test_a_node_without_a_fault_is_usable(phi: Workspace, found: Node) -> None:
    report = evaluated(phi, found)
    assert (report.usable, report.faults, report.gpu_faults) == (("gpu-0",), (), ())
    assert report.ready == {"gpu-0"}
    assert report.is_sufficient


@pytest.mark.parametrize(
    ("gpus", "wanted", "fault"),
    [
        ("0", 1, "advertises 0 of 1 nvidia.com/gpu (device plugin missing or starting)"),
        ("1", 2, "advertises 1 of 2 nvidia.com/gpu (device plugin missing or starting)"),
    ],
)
def test_missing_gpus_are_a_separate_fault(phi: Workspace, gpus: str, wanted: int, fault: str) -> None:
    hardware = Hardware(copies=1, instance_type="Standard_NC6s_v3", gpus=wanted, disk=Quantity(0))
    report = evaluated(phi, node(gpus=gpus), hardware=hardware)
    assert report.gpu_faults == (f"node gpu-0 {fault}",)
    assert (report.faults, report.usable) == ((), ())


def test_a_divided_node_must_advertise_every_slice(phi: Workspace) -> None:
    hardware = Hardware(copies=7, copies_per_node=7, instance_type="Standard_NC6s_v3", gpus=1, disk=Quantity(0))
    report = evaluated(phi, node("a", gpus="1"), node("b", gpus="7"), hardware=hardware)
    assert report.gpu_faults == ("node a advertises 1 of 7 nvidia.com/gpu (device plugin missing or starting)",)
    assert (report.usable, report.wanted, report.is_sufficient) == (("b",), 1, True)


def test_another_gpu_resource_is_counted_where_it_is_planned(phi: Workspace) -> None:
    hardware = Hardware(copies=1, instance_type="", gpus=1, gpu_resource="amd.com/gpu", disk=Quantity(0))
    assert evaluated(phi, node(), hardware=hardware).gpu_faults == (
        "node gpu-0 advertises 0 of 1 amd.com/gpu (device plugin missing or starting)",
    )


def test_nodes_are_sorted_and_counted(phi: Workspace) -> None:
    two = Hardware(copies=2, instance_type="Standard_NC6s_v3", gpus=1, disk=Quantity(0))
    report = evaluated(phi, node("b"), node("a"), node("c", unschedulable=True), hardware=two)
    assert (report.names, report.usable) == (("a", "b", "c"), ("a", "b"))
    assert report.ready == {"a", "b", "c"}
    assert report.is_sufficient
    assert not evaluated(phi, node("b"), hardware=two).is_sufficient


def test_nodes_of_others_are_left_out(phi: Workspace) -> None:
    assert evaluated(phi, node(labels={"kaito.sh/workspace": "other"})).names == ()
    assert evaluated(phi, node(labels={"kaito.sh/workspace": "other"}), node_api=NodeApi.BYO).names == ("gpu-0",)


@pytest.mark.parametrize(
    ("conditions", "pressure"),
    [
        ([{"type": "DiskPressure", "status": "True"}], ("gpu-0 (DiskPressure)",)),
        (
            [{"type": "PIDPressure", "status": "True"}, {"type": "MemoryPressure", "status": "True"}],
            ("gpu-0 (MemoryPressure, PIDPressure)",),
        ),
        ([{"type": "DiskPressure", "status": "False"}], ()),
        ([{"type": "NetworkUnavailable", "status": "True"}], ()),
    ],
)
def test_pressure_is_a_warning(phi: Workspace, conditions: list[dict[str, str]], pressure: tuple[str, ...]) -> None:
    report = evaluated(phi, node(conditions=[READY, *conditions]))
    assert report.pressures == pressure
    assert report.is_sufficient


FREE = {"kaito.sh/workspace": "", "kaito.sh/workspacenamespace": ""}


@pytest.mark.parametrize(
    ("found", "is_taken"),
    [
        (node("mine", labels=FREE), True),
        (node("mine", labels=FREE | {"node.kubernetes.io/instance-type": "Standard_NC12s_v3"}), True),
        (node("mine"), False),  # another Workspace's already
        (node("mine", labels=FREE | {"apps": "other"}), False),
        (node("mine", labels=FREE, gpus="0"), False),
        (node("mine", labels=FREE, unschedulable=True), False),
        (node("mine", labels=FREE, conditions=not_ready()), False),
        (node("unnamed", labels=FREE), False),
    ],
)
def test_a_preferred_node_is_taken_when_free_and_usable(phi: Workspace, found: Node, *, is_taken: bool) -> None:
    wishful = phi.evolve(resource=phi.resource.evolve(preferred_nodes=["mine"]))
    assert [taken.name for taken in find_free_preferred_nodes(wishful, ONE_GPU, [found])] == ["mine"] * is_taken


def test_a_preferred_node_that_cannot_be_used_is_named_with_the_reason(phi: Workspace) -> None:
    wishful = phi.evolve(
        resource=phi.resource.evolve(preferred_nodes=["none", "own", "free", "label", "theirs", "gpu"])
    )
    theirs = {"kaito.sh/workspace": "other", "kaito.sh/workspacenamespace": "team"}
    found = [
        node("own"),
        node("free", labels=FREE),
        node("label", labels=FREE | {"apps": "other"}),
        node("theirs", labels=theirs),
        node("gpu", labels=FREE, gpus="0"),
    ]
    assert unused_preferred_nodes(wishful, ONE_GPU, found) == [
        "preferred node none does not exist",
        "preferred node label does not match resource.labelSelector",
        "preferred node theirs is used by Workspace team/other",
        "preferred node gpu advertises 0 of 1 nvidia.com/gpu (device plugin missing or starting)",
    ]


def test_preferred_nodes_are_taken_in_the_order_of_the_wish(phi: Workspace) -> None:
    wishful = phi.evolve(resource=phi.resource.evolve(preferred_nodes=["z", "a"]))
    found = [node("a", labels=FREE), node("z", labels=FREE)]
    assert [taken.name for taken in find_free_preferred_nodes(wishful, ONE_GPU, found)] == ["z", "a"]
