"""Workspaces whose nodes a real Karpenter core creates, with its kwok provider.

All Workspaces are applied at the start, so that their waiting times overlap; each test looks at one of them. The role
of the installation is limited to three node classes: the others cannot be read.
"""

import json
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from hack.envtest import Unavailable
from test.support.karpenter import KarpenterStack, karpenter_stack

pytestmark = pytest.mark.timeout(400)

FLAGS = ("--node-api=nodeclaim", "--karpenter-node-class-group=karpenter.kwok.sh")
GROUP = "karpenter.kwok.sh/KWOKNodeClass"
READABLE = ("default", "later", "broken")
CONSOLIDATION_SECONDS = 5


def node_class(name: str, **status: Any) -> dict[str, Any]:
    document = {"apiVersion": "karpenter.kwok.sh/v1alpha1", "kind": "KWOKNodeClass", "metadata": {"name": name}}
    return document | ({"status": status} if status else {})


def workspace(name: str, node_class_name: str = "", size: str = "Standard_NC6s_v3") -> dict[str, Any]:
    annotations = {"kaito.sh/node-class": node_class_name} if node_class_name else {}
    return {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": name, "namespace": "default", "annotations": annotations},
        "resource": {"instanceType": size, "labelSelector": {"matchLabels": {"apps": name}}},
        "inference": {"preset": {"name": "phi-3-mini-4k-instruct"}},
    }


def pool(name: str) -> dict[str, Any]:
    """A NodePool whose empty nodes Karpenter deletes after five seconds."""
    reference = {"group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": "default"}
    template: dict[str, Any] = {"spec": {"nodeClassRef": reference, "requirements": [], "expireAfter": "Never"}}
    disruption = {
        "consolidationPolicy": "WhenEmpty",
        "consolidateAfter": f"{CONSOLIDATION_SECONDS}s",
        "budgets": [{"nodes": "100%"}],
    }
    return {
        "apiVersion": "karpenter.sh/v1",
        "kind": "NodePool",
        "metadata": {"name": name},
        "spec": {"template": template, "disruption": disruption, "limits": {"cpu": "0"}},
    }


def unprotected_claim() -> dict[str, Any]:
    """A claim as Karpenter would create it, without the annotation that forbids disruption."""
    requirements = [
        {"key": "karpenter.sh/nodepool", "operator": "In", "values": ["other"]},
        {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["Standard_D4s_v3"]},
    ]
    return {
        "apiVersion": "karpenter.sh/v1",
        "kind": "NodeClaim",
        "metadata": {"name": "unprotected", "labels": {"karpenter.sh/nodepool": "other"}},
        "spec": {
            "nodeClassRef": {"group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": "default"},
            "requirements": requirements,
        },
    }


@pytest.fixture(scope="module")
def stack() -> Iterator[KarpenterStack]:
    """Everything running, with every Workspace of this module."""
    try:
        with karpenter_stack(FLAGS, node_class("default"), node_class("broken"), pool("kaito"), pool("other")) as stack:
            limit = [{"op": "add", "path": "/rules/2/resourceNames", "value": list(READABLE)}]
            role = "workspace-controller-node-classes"
            stack.kubectl("patch", "clusterrole", role, "--type=json", f"--patch={json.dumps(limit)}")
            set_broken(stack, "False", "no subnet matches the selector")
            stack.apply(
                workspace("life"),
                workspace("lost"),
                workspace("later", f"{GROUP}/later"),
                workspace("broken", f"{GROUP}/broken"),
                workspace("hidden", f"{GROUP}/hidden"),
                workspace("foreign", "karpenter.sh/NodePool/kaito"),
                unprotected_claim(),
            )
            yield stack
    except Unavailable as reason:
        pytest.skip(str(reason))


def set_broken(stack: KarpenterStack, status: str, message: str) -> None:
    condition = {"type": "Ready", "status": status, "reason": "Test", "message": message}
    patch = {"status": {"conditions": [condition | {"lastTransitionTime": "2030-01-01T00:00:00Z"}]}}
    arguments = ("--subresource=status", "--type=merge", f"--patch={json.dumps(patch)}")
    stack.kubectl("patch", "kwoknodeclass", "broken", *arguments)


def test_a_workspace_is_ready_in_seconds_and_deleted_without_a_remainder(stack: KarpenterStack) -> None:
    stack.until_condition("life", "WorkspaceReady", "True")
    (claim,) = stack.claims("life")
    assert claim["spec"]["nodeClassRef"] == {"group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": "default"}
    assert claim["spec"]["expireAfter"] == "Never"
    assert claim["spec"]["resources"] == {}
    (node,) = stack.items("nodes", "kaito.sh/workspace=life")
    assert node["metadata"]["labels"]["node.kubernetes.io/instance-type"] == "Standard_NC6s_v3"
    assert node["metadata"]["labels"]["karpenter.sh/initialized"] == "true"
    assert node["status"]["capacity"]["nvidia.com/gpu"] == "1"
    stack.kubectl("delete", "workspace", "life", "--timeout=60s")
    assert stack.claims("life") == []
    stack.until(lambda: not stack.items("nodes", "kaito.sh/workspace=life"), "the deletion of the node")


def test_consolidation_leaves_nodes_of_workspaces(stack: KarpenterStack) -> None:
    """Karpenter deletes the empty node of another pool, and keeps the empty node of a Workspace."""
    stack.until_condition("lost", "WorkspaceReady", "True")
    before = stack.created("lost")
    ready_at = time.monotonic()
    stack.until(lambda: not any(c["metadata"]["name"] == "unprotected" for c in stack.items("nodeclaims")),
                "the deletion of the unprotected claim")  # fmt: skip
    stack.until(lambda: time.monotonic() - ready_at > 3 * CONSOLIDATION_SECONDS, "the time of consolidation")
    (claim,) = stack.claims("lost")
    assert "deletionTimestamp" not in claim["metadata"]
    assert [claim["metadata"]["name"]] == before == stack.created("lost")


def test_a_node_deleted_by_hand_is_replaced_after_the_backoff(stack: KarpenterStack) -> None:
    stack.until_condition("lost", "WorkspaceReady", "True")
    (node,) = stack.items("nodes", "kaito.sh/workspace=lost")
    (first,) = stack.created("lost")
    stack.kubectl("delete", "node", node["metadata"]["name"], "--timeout=60s")
    message = stack.until_condition("lost", "NodeClaimReady", "False", "ReplacementPending")
    assert "claims were lost once" in message
    stack.until(lambda: len(stack.created("lost")) == 2, "the replacement", 60)
    (claim,) = stack.claims("lost")
    assert claim["metadata"]["name"] != first
    stack.until_condition("lost", "WorkspaceReady", "True")


def test_a_missing_class_is_reported_before_a_claim_is_created(stack: KarpenterStack) -> None:
    message = stack.until_condition("later", "WorkspaceReady", "False", "NodeClassNotFound")
    assert f"node class {GROUP}/later does not exist: create it" in message
    assert stack.created("later") == []
    stack.apply(node_class("later"))
    stack.until_condition("later", "WorkspaceReady", "True")
    assert len(stack.created("later")) == 1


def test_a_class_that_is_not_ready_is_reported_before_a_claim_is_created(stack: KarpenterStack) -> None:
    message = stack.until_condition("broken", "WorkspaceReady", "False", "NodeClassNotReady")
    assert "no subnet matches the selector" in message
    assert stack.created("broken") == []
    set_broken(stack, "True", "")
    stack.until_condition("broken", "WorkspaceReady", "True")


def test_claims_that_karpenter_deletes_at_once_are_bounded_and_explained(stack: KarpenterStack) -> None:
    """The class does not exist, and the controller may not read it: only Karpenter's Event contains the cause."""
    stack.until(lambda: len(stack.created("hidden")) >= 2, "the first replacement")
    message = stack.until_condition("hidden", "WorkspaceReady", "False", "times in a row")
    assert "InsufficientCapacityError" in message
    assert '"hidden" not found' in message
    assert (
        "it is unknown whether node class karpenter.kwok.sh/KWOKNodeClass/hidden is Ready"
        in (stack.conditions("hidden")["NodeClaimReady"][2])
    )
    names, times = stack.created("hidden"), stack.creation_times("hidden")
    assert len(names) == len(set(names))
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert all(pause >= 30 * 2**number - 1 for number, pause in enumerate(pauses)), pauses


def test_a_claim_that_karpenter_ignores_is_reported(stack: KarpenterStack) -> None:
    """The kind exists, but it is not one of the provider's node classes: no condition, no Event."""
    words = "check that a provisioner for node class karpenter.sh/NodePool/kaito runs"
    stack.until_condition("foreign", "WorkspaceReady", "False", words, 120)
    assert len(stack.claims("foreign")) == 1


def test_an_instance_type_that_karpenter_does_not_offer_is_reported(stack: KarpenterStack) -> None:
    """Last: while a claim is not launched, Karpenter disrupts nothing in the cluster."""
    stack.apply(workspace("size", size="Standard_NC12s_v3"))
    message = stack.until_condition("size", "WorkspaceReady", "False", "instance type not found")
    assert message.startswith("LaunchFailed")
    assert len(stack.created("size")) == 1
