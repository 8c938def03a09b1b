"""The notices of clouds before they take a node back, and what is none."""

import pytest

from kaito.api import labels
from kaito.runtime.kinds import Node
from kaito.workspace.eviction import find_notice, is_spot

PREEMPT = "Preempt Scheduled: Mon, 02 Mar 2026 19:01:45 GMT"


def node(*, condition: tuple[str, str, str] | None = None, taint: str = "", spot: bool = True) -> Node:
    conditions: list[dict[str, str]] = []
    if condition is not None:
        conditions.append(dict(zip(("type", "status", "message"), condition, strict=True)))
    key, _, value = taint.partition("=")
    taints = [{"key": key, "value": value, "effect": "NoSchedule"}] if taint else []
    own = {labels.CAPACITY_TYPE: "spot" if spot else "on-demand"}
    return Node.model_validate(
        {"metadata": {"name": "n", "labels": own}, "spec": {"taints": taints}, "status": {"conditions": conditions}}
    )


@pytest.mark.parametrize(
    ("condition", "notice"),
    [
        (("VMEventScheduled", "True", f"{PREEMPT}. For more information, see the page"), PREEMPT),
        (("VMEventScheduled", "False", "VM has no scheduled event"), ""),
        (("VMEventScheduled", "True", "Reboot Scheduled: Mon, 02 Mar 2026 19:01:45 GMT"), ""),
        (("VMEventScheduled", "True", "Freeze Scheduled: Mon, 02 Mar 2026 19:01:45 GMT"), ""),
        (("VMEventScheduled", "Unknown", PREEMPT), ""),
        (("PreemptionScheduled", "True", f"{PREEMPT}. EventId: 40B7BD88"), PREEMPT),
        (("PreemptScheduled", "True", ""), "PreemptScheduled"),
        (("PreemptScheduled", "False", ""), ""),
        (("KubeletProblem", "True", PREEMPT), ""),
    ],
)
def test_conditions(condition: tuple[str, str, str], notice: str) -> None:
    assert find_notice(node(condition=condition)) == notice


@pytest.mark.parametrize(
    ("taint", "spot", "notice"),
    [
        ("cloudprovider.azure.microsoft.com/draining=spot-eviction", True, True),
        ("remediator.kubernetes.azure.com/unschedulable", True, True),
        ("remediator.kubernetes.azure.com/unschedulable", False, False),
        ("remediator.aks.microsoft.com/unschedulable", True, True),
        ("aws-node-termination-handler/spot-itn=1", True, True),
        ("cloud.google.com/impending-node-termination", False, True),
        ("kubernetes.azure.com/scalesetpriority=spot", True, False),
        ("node.kubernetes.io/unschedulable", True, False),
    ],
)
def test_taints(taint: str, spot: bool, notice: bool) -> None:
    assert find_notice(node(taint=taint, spot=spot)) == (f"taint {taint}" if notice else "")


def test_spot_nodes_of_aks_and_of_karpenter() -> None:
    aks = Node.model_validate({"metadata": {"name": "n", "labels": {"kubernetes.azure.com/scalesetpriority": "spot"}}})
    assert [is_spot(aks), is_spot(node(spot=True)), is_spot(node(spot=False))] == [True, True, False]
