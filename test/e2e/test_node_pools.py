"""Workspaces with a NodePool (`--node-api=karpenter`): a real Karpenter core creates the nodes with its kwok provider.

While a claim in the cluster has no instance, Karpenter disrupts no node. The tests that need drift therefore run before
those with claims that cannot be launched, and each waits until the claims of the others are settled.
"""

import json
import subprocess
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import dropwhile
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


def preferring(name: str, replicas: int, *nodes: str) -> dict[str, Any]:
    document = scaled(name, replicas)
    return document | {"resource": {**document["resource"], "preferredNodes": list(nodes)}}


def inference_set(name: str, replicas: int) -> dict[str, Any]:
    single = workspace(name)
    return {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "InferenceSet",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "labelSelector": single["resource"]["labelSelector"],
            "template": {
                "resource": {"instanceType": single["resource"]["instanceType"]},
                "inference": single["inference"],
            },
        },
    }


def own_node(name: str, workspace_name: str) -> dict[str, Any]:
    """A node that no provisioner created, with the labels that a Workspace selects."""
    found = {"apps": workspace_name, "node.kubernetes.io/instance-type": "Standard_NC6s_v3"}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": found}}


def make_ready(stack: KarpenterStack, node: str) -> None:
    """Reports the node as Ready for a long time, with one GPU, as its kubelet and device plugin do."""
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    sizes = {"nvidia.com/gpu": "1", "cpu": "6", "memory": "112Gi", "pods": "110", "ephemeral-storage": "500Gi"}
    status = {"status": {"conditions": [ready], "capacity": sizes, "allocatable": sizes}}
    merge = ("--type=merge", f"--patch={json.dumps(status)}")
    stack.kubectl("patch", "node", node, "--subresource=status", *merge)
    stack.kubectl("patch", "node", node, "--type=merge", '--patch={"spec": {"taints": null}}')


def nodes_of(found: list[dict[str, Any]]) -> set[str]:
    return {pod["spec"]["nodeName"] for pod in found}


@contextmanager
def other_class(stack: KarpenterStack, name: str) -> Generator[None]:
    """Runs the controller with another default node class."""
    (controller,) = [program for program in stack.programs if program.name == "workspace-controller"]
    flag = f"--karpenter-node-class-name={name}"
    controller.stop()
    controller.command.append(flag)
    controller.start()
    try:
        yield
    finally:
        controller.stop()
        controller.command.remove(flag)
        controller.start()


def pools(stack: KarpenterStack, name: str) -> list[dict[str, Any]]:
    return stack.items("nodepools", f"kaito.sh/workspace={name}")


def pods(stack: KarpenterStack, name: str) -> list[dict[str, Any]]:
    return [p for p in stack.items("pods", f"kaito.sh/workspace={name}") if not p["metadata"].get("deletionTimestamp")]


def named(document: dict[str, Any]) -> str:
    name: str = document["metadata"]["name"]
    return name


def class_of(claim: dict[str, Any]) -> str:
    name: str = claim["spec"]["nodeClassRef"]["name"]
    return name


def until_settled(stack: KarpenterStack, name: str, nodes: int) -> None:
    """Waits until the Workspace is Ready with exactly this number of claims, nodes and pods."""
    stack.until_condition(name, "WorkspaceReady", "True", seconds=DEADLINE)

    def settled() -> bool:
        claims = stack.claims(name)
        # The provider leaves a Node without a claim if Karpenter deletes a claim in the moment after its launch.
        claimed = {claim.get("status", {}).get("nodeName") for claim in claims}
        found = [node for node in stack.items("nodes", f"kaito.sh/workspace={name}") if named(node) in claimed]
        return [len(claims), len(found), len(pods(stack, name))] == [nodes, nodes, nodes]

    stack.until(settled, f"{nodes} claims, nodes and pods of {name}", DEADLINE)


@contextmanager
def recorded(stack: KarpenterStack, *names: str, kind: str = "nodeclaims") -> Generator[list[dict[str, Any]]]:
    """Records every state of the claims or pools of Workspaces, from the watch of the API server."""
    path = Path(stack.folder) / f"{names[0]}.{kind}.watch"
    command = ["kubectl", f"--kubeconfig={stack.kubeconfig}", "get", kind, "--watch", "--output-watch-events"]
    selector = f"--selector=kaito.sh/workspace in ({','.join(names)})"
    events: list[dict[str, Any]] = []
    with path.open("w") as file:
        watch = subprocess.Popen([*command, selector, "-o", "json"], stdout=file)
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


def states(events: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yields the objects that exist after each event."""
    found: dict[str, dict[str, Any]] = {}
    for event in events:
        if event["type"] == "DELETED":
            found.pop(named(event["object"]), None)
        else:
            found[named(event["object"])] = event["object"]
        yield list(found.values())


def is_live(claim: dict[str, Any]) -> bool:
    return "deletionTimestamp" not in claim["metadata"]


def is_usable(claim: dict[str, Any]) -> bool:
    conditions = {each["type"]: each["status"] for each in claim.get("status", {}).get("conditions", [])}
    return conditions.get("Ready") == "True" and is_live(claim)


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
    least, were_two, most = 2, False, 0
    for claims in states(events):
        usable = sum(map(is_usable, claims))
        were_two = were_two or usable >= 2
        least = min(least, usable) if were_two else least
        most = max(most, sum(map(is_live, claims)))
    assert were_two
    assert least == 2, "a node is drained after its replacement is Ready"
    assert most == 3, "one node at a time"
    assert "lost" not in stack.conditions(name)["NodeClaimReady"][2]
    stack.kubectl("delete", "workspace", name, f"--timeout={DEADLINE:.0f}s")


def test_preferred_nodes_are_used_before_the_pool_has_nodes(stack: KarpenterStack) -> None:
    stack.apply(own_node("own-a", "first"))
    make_ready(stack, "own-a")
    stack.apply(preferring("first", 2, "own-a"))
    stack.until_condition("first", "WorkspaceReady", "True", seconds=DEADLINE)
    stack.until(lambda: len(pods(stack, "first")) == 2, "two pods", DEADLINE)
    (pool,) = pools(stack, "first")
    assert pool["spec"]["replicas"] == 1
    (claim,) = stack.claims("first")
    assert nodes_of(pods(stack, "first")) == {"own-a", claim["status"]["nodeName"]}
    stack.kubectl("delete", "node", "own-a")  # its pod is lost with it
    stack.kubectl("delete", "pod", "--grace-period=0", "--force", *[
        pod["metadata"]["name"] for pod in pods(stack, "first") if pod["spec"]["nodeName"] == "own-a"
    ])  # fmt: skip
    stack.until(lambda: len(stack.claims("first")) == 2, "a node of the pool in its place", DEADLINE)
    until_settled(stack, "first", 2)
    assert pools(stack, "first")[0]["spec"]["replicas"] == 2
    stack.kubectl("delete", "workspace", "first", f"--timeout={DEADLINE:.0f}s")


def test_a_copy_moves_to_a_preferred_node_and_the_pool_gives_its_node_back(stack: KarpenterStack) -> None:
    stack.apply(preferring("moves", 2))
    until_settled(stack, "moves", 2)
    before = {claim["metadata"]["name"] for claim in stack.claims("moves")}
    stack.apply(own_node("own-b", "moves"))
    make_ready(stack, "own-b")
    with recorded(stack, "moves") as events:
        stack.apply(preferring("moves", 2, "own-b"))
        stack.until(lambda: len(stack.claims("moves")) == 1, "the deletion of a claim", DEADLINE)
        stack.until(lambda: "own-b" in nodes_of(pods(stack, "moves")), "the pod on the preferred node", DEADLINE)
        stack.until_condition("moves", "WorkspaceReady", "True", seconds=DEADLINE)
    assert pools(stack, "moves")[0]["spec"]["replicas"] == 1
    (left,) = stack.claims("moves")
    assert left["metadata"]["name"] in before
    assert all((claims and is_live(claims[0])) or len(claims) > 1 for claims in states(events)), "one node stays"
    assert {claim["metadata"]["name"] for claims in states(events) for claim in claims} == before, "no node is added"
    assert nodes_of(pods(stack, "moves")) == {"own-b", left["status"]["nodeName"]}
    assert "lost" not in stack.conditions("moves")["NodeClaimReady"][2]
    stack.kubectl("delete", "workspace", "moves", f"--timeout={DEADLINE:.0f}s")
    (node,) = [node for node in stack.items("nodes") if node["metadata"]["name"] == "own-b"]
    assert "kaito.sh/workspace" not in node["metadata"]["labels"]
    stack.kubectl("delete", "node", "own-b")


def is_open(pool: dict[str, Any]) -> bool:
    """Whether Karpenter may replace a node of the pool."""
    budgets: list[dict[str, Any]] = pool["spec"]["disruption"]["budgets"]
    return any(budget["nodes"] == "1" for budget in budgets)


def test_the_workspaces_of_a_set_replace_their_nodes_in_turns(stack: KarpenterStack) -> None:
    """The class of all pools changes at once: the controller starts with another flag."""
    names = [f"turns-{number}" for number in range(3)]
    stack.apply(inference_set("turns", 3))
    stack.until(lambda: len(stack.items("statefulsets")) == 3, "three StatefulSets", DEADLINE)
    for name in names:
        until_settled(stack, name, 1)
    before = {named(claim) for name in names for claim in stack.claims(name)}
    with (
        recorded(stack, *names) as claim_events,
        recorded(stack, *names, kind="nodepools") as pool_events,
        other_class(stack, "gpu"),
    ):
        stack.until(lambda: [class_of(claim) for name in names for claim in stack.claims(name)] == ["gpu"] * 3,
                    "three claims of the new class", DEADLINE)  # fmt: skip
        for name in names:
            until_settled(stack, name, 1)
    stack.kubectl("delete", "inferenceset", "turns", f"--timeout={DEADLINE:.0f}s")
    turns = [{named(pool) for pool in pools if is_open(pool)} for pools in states(pool_events)]
    assert len({name for turn in turns for name in turn}) == 3, "each Workspace has its turn"
    assert max(map(len, turns)) == 1, "one at a time"
    listed = dropwhile(lambda claims: len(claims) < len(names), states(claim_events))  # the watch begins with a list
    for claims in listed:
        served = {claim["metadata"]["labels"]["kaito.sh/workspace"] for claim in claims if is_usable(claim)}
        assert served == set(names), "a node is drained after its replacement is Ready"
        replaced = {claim["metadata"]["labels"]["kaito.sh/workspace"] for claim in claims
                    if named(claim) in before and not is_live(claim)}  # fmt: skip
        assert len(replaced) <= 1, "the copies of two Workspaces never move at the same time"


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
