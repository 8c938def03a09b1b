"""Workspaces with a NodePool (`--node-api=karpenter`): a real Karpenter core creates the nodes with its kwok provider.

While a claim in the cluster has no instance, Karpenter disrupts no node. The tests that need drift therefore run before
those with claims that cannot be launched, and each waits until the claims of the others are settled.
"""

import json
import subprocess
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hack.envtest import Unavailable
from test.e2e.test_karpenter import GROUP, node_class, workspace
from test.support.karpenter import KarpenterStack, karpenter_stack

pytestmark = pytest.mark.timeout(900)

FLAGS = ("--node-provisioner=karpenter", "--karpenter-node-class-group=karpenter.kwok.sh")
DEADLINE = 400.0
"""Karpenter looks for drift every ten seconds, and replaces one node after the other; a busy machine is five times
slower."""


def scaled(name: str, replicas: int, **arguments: str) -> dict[str, Any]:
    return workspace(name, **arguments) | {"spec": {"replicas": replicas}}


@pytest.fixture(scope="module")
def stack() -> Iterator[KarpenterStack]:
    """Everything running."""
    try:
        with karpenter_stack(
            FLAGS, node_class("default"), node_class("gpu"), overlay="karpenter-node-pools", pods=True
        ) as stack:
            yield stack
    except Unavailable as reason:
        pytest.skip(str(reason))


def pools(stack: KarpenterStack, name: str) -> list[dict[str, Any]]:
    return stack.items("nodepools", f"kaito.sh/workspace={name}")


def pods(stack: KarpenterStack, name: str) -> list[dict[str, Any]]:
    return [p for p in stack.items("pods", f"kaito.sh/workspace={name}") if not p["metadata"].get("deletionTimestamp")]


def class_of(claim: dict[str, Any]) -> str:
    name: str = claim["spec"]["nodeClassRef"]["name"]
    return name


def until_settled(stack: KarpenterStack, name: str, nodes: int) -> None:
    """Waits until the Workspace is Ready with exactly this number of claims, nodes and pods."""
    stack.until_condition(name, "WorkspaceReady", "True", seconds=DEADLINE)

    def settled() -> bool:
        found = stack.claims(name), stack.items("nodes", f"kaito.sh/workspace={name}"), pods(stack, name)
        return [len(each) for each in found] == [nodes, nodes, nodes]

    stack.until(settled, f"{nodes} claims, nodes and pods of {name}", DEADLINE)


@contextmanager
def recorded(stack: KarpenterStack, name: str) -> Generator[list[dict[str, Any]]]:
    """Records every state of the claims of a Workspace, from the watch of the API server."""
    path = Path(stack.folder) / f"{name}.watch"
    command = ["kubectl", f"--kubeconfig={stack.kubeconfig}", "get", "nodeclaims", "--watch", "--output-watch-events"]
    events: list[dict[str, Any]] = []
    with path.open("w") as file:
        watch = subprocess.Popen([*command, f"--selector=kaito.sh/workspace={name}", "-o", "json"], stdout=file)
        try:
            yield events
            time.sleep(1)  # the last events reach kubectl
        finally:
            watch.terminate()
            watch.wait()
    decoder, text = json.JSONDecoder(), path.read_text()
    position = 0
    while (position := next((i for i in range(position, len(text)) if not text[i].isspace()), len(text))) < len(text):
        event, position = decoder.raw_decode(text, position)
        events.append(event)


def is_usable(claim: dict[str, Any]) -> bool:
    conditions = {each["type"]: each["status"] for each in claim.get("status", {}).get("conditions", [])}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in claim["metadata"]


def test_a_workspace_has_one_pool_and_is_ready_and_deleted_without_a_remainder(stack: KarpenterStack) -> None:
    stack.apply(scaled("life", 2))
    until_settled(stack, "life", 2)
    (pool,) = pools(stack, "life")
    assert (pool["spec"]["replicas"], pool["spec"]["limits"]) == (2, {"nodes": "3"})
    for claim in stack.claims("life"):
        assert claim["metadata"]["labels"]["karpenter.sh/nodepool"] == pool["metadata"]["name"]
        assert claim["spec"]["expireAfter"] == "Never"
    (first, _) = stack.items("nodes", "kaito.sh/workspace=life")
    assert first["metadata"]["labels"]["node.kubernetes.io/instance-type"] == "Standard_NC6s_v3"
    assert first["metadata"]["labels"]["karpenter.sh/initialized"] == "true"
    stack.kubectl("delete", "workspace", "life", f"--timeout={DEADLINE:.0f}s")
    assert stack.claims("life") == []
    assert pools(stack, "life") == []
    stack.until(lambda: not stack.items("nodes", "kaito.sh/workspace=life"), "the deletion of the nodes", DEADLINE)


def test_copies_are_added_and_removed(stack: KarpenterStack) -> None:
    stack.apply(scaled("scale", 1))
    until_settled(stack, "scale", 1)
    (kept,) = stack.claims("scale")
    stack.kubectl("scale", "workspace", "scale", "--replicas=3")
    stack.until(lambda: len(stack.claims("scale")) == 3, "three claims", DEADLINE)
    until_settled(stack, "scale", 3)
    stack.kubectl("scale", "workspace", "scale", "--replicas=1")
    stack.until(lambda: len(stack.claims("scale")) == 1, "one claim", DEADLINE)
    until_settled(stack, "scale", 1)
    (left,) = stack.claims("scale")
    assert left["metadata"]["name"] == kept["metadata"]["name"], "the node of the first copy"
    assert "lost" not in stack.conditions("scale")["NodeClaimReady"][2]
    stack.kubectl("delete", "workspace", "scale", f"--timeout={DEADLINE:.0f}s")


def test_a_node_deleted_by_hand_is_replaced(stack: KarpenterStack) -> None:
    stack.apply(scaled("lost", 1))
    until_settled(stack, "lost", 1)
    (node,) = stack.items("nodes", "kaito.sh/workspace=lost")
    (first,) = stack.claims("lost")
    stack.kubectl("delete", "node", node["metadata"]["name"], f"--timeout={DEADLINE:.0f}s")
    stack.until(lambda: stack.claims("lost") and first["metadata"]["name"] not in
                {claim["metadata"]["name"] for claim in stack.claims("lost")}, "the replacement", DEADLINE)  # fmt: skip
    until_settled(stack, "lost", 1)
    stack.kubectl("delete", "workspace", "lost", f"--timeout={DEADLINE:.0f}s")


@pytest.mark.parametrize("moment", ["as-it-starts", "as-it-serves"])
def test_a_changed_class_replaces_one_node_at_a_time_the_new_one_first(stack: KarpenterStack, moment: str) -> None:
    name = f"drift-{moment}"
    stack.apply(scaled(name, 2))
    if moment == "as-it-serves":
        until_settled(stack, name, 2)
    else:
        stack.until(lambda: len(stack.claims(name)) == 2, "two claims", DEADLINE)
    with recorded(stack, name) as events:
        stack.kubectl("annotate", "workspace", name, f"kaito.sh/node-class={GROUP}/gpu")
        stack.until(lambda: pools(stack, name)[0]["spec"]["template"]["spec"]["nodeClassRef"]["name"] == "gpu",
                    "the class of the pool", DEADLINE)  # fmt: skip
        stack.until(lambda: [class_of(claim) for claim in stack.claims(name)] == ["gpu", "gpu"],
                    "two claims of the new class", DEADLINE)  # fmt: skip
        until_settled(stack, name, 2)
    claims: dict[str, dict[str, Any]] = {}
    least, were_two, most = 2, False, 0
    for event in events:
        claim = event["object"]
        if event["type"] == "DELETED":
            claims.pop(claim["metadata"]["name"], None)
        else:
            claims[claim["metadata"]["name"]] = claim
        usable = sum(is_usable(each) for each in claims.values())
        were_two = were_two or usable >= 2
        least = min(least, usable) if were_two else least
        most = max(most, sum("deletionTimestamp" not in each["metadata"] for each in claims.values()))
    assert were_two
    assert least == 2, "a node is drained after its replacement is Ready"
    assert most == 3, "one node at a time"
    assert "lost" not in stack.conditions(name)["NodeClaimReady"][2]
    stack.kubectl("delete", "workspace", name, f"--timeout={DEADLINE:.0f}s")


def test_a_class_that_does_not_exist_leaves_the_nodes(stack: KarpenterStack) -> None:
    stack.apply(scaled("keep", 1))
    until_settled(stack, "keep", 1)
    (before,) = stack.claims("keep")
    stack.kubectl("annotate", "workspace", "keep", f"kaito.sh/node-class={GROUP}/later")
    words = f"the node class is not changed: node class {GROUP}/later does not exist"
    stack.until_condition("keep", "NodeClaimReady", "True", words, DEADLINE)
    assert [claim["metadata"]["name"] for claim in stack.claims("keep")] == [before["metadata"]["name"]]
    assert pools(stack, "keep")[0]["spec"]["template"]["spec"]["nodeClassRef"]["name"] == "default"
    stack.kubectl("delete", "workspace", "keep", f"--timeout={DEADLINE:.0f}s")


def test_a_missing_class_is_reported_before_the_pool_exists(stack: KarpenterStack) -> None:
    stack.apply(scaled("missing", 1, node_class_name=f"{GROUP}/absent"))
    message = stack.until_condition("missing", "WorkspaceReady", "False", "NodeClassNotFound", DEADLINE)
    assert f"node class {GROUP}/absent does not exist: create it" in message
    assert pools(stack, "missing") == []
    stack.apply(node_class("absent"))
    until_settled(stack, "missing", 1)
    stack.kubectl("delete", "workspace", "missing", f"--timeout={DEADLINE:.0f}s")


def test_an_instance_type_that_karpenter_does_not_offer_is_reported(stack: KarpenterStack) -> None:
    """Last: while a claim is not launched, Karpenter disrupts nothing in the cluster."""
    stack.apply(scaled("size", 1, size="Standard_NC12s_v3"))
    message = stack.until_condition("size", "WorkspaceReady", "False", "instance type not found", DEADLINE)
    assert message.startswith("LaunchFailed")
    assert len(stack.claims("size")) == 1
    stack.kubectl("delete", "workspace", "size", f"--timeout={DEADLINE:.0f}s")
