"""Copies on slices of the GPUs of new nodes, on a real API server with both binaries and the ARM simulator."""

import json
from typing import Any

import pytest

from test.support.stack import Stack, stack, until

MANIFEST = """
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {name: small}
resource:
  instanceType: Standard_NC24ads_A100_v4
  count: 8
  partition: {mode: mig, profile: 1g.10gb}
  labelSelector: {matchLabels: {apps: small}}
inference:
  preset: {name: qwen3.5-2b}
"""


def items(running: Stack, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(running.kubectl("get", kind, "-o", "json"))["items"]
    return found


def columns(running: Stack) -> list[str]:
    return running.kubectl("get", "workspace", "small").splitlines()[1].split()[2:5]


def stateful_set(running: Stack) -> dict[str, Any]:
    (found,) = items(running, "statefulsets")
    return found


def add_pod(running: Stack, owner: dict[str, Any], ordinal: int, node: str) -> None:
    """Creates a pod of the StatefulSet on a node, as its controller, the scheduler and the kubelet do."""
    metadata, template = owner["metadata"], owner["spec"]["template"]
    reference = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "small", "uid": metadata["uid"]}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"small-{ordinal}",
            "labels": template["metadata"]["labels"],
            "ownerReferences": [reference | {"controller": True}],
        },
        "spec": template["spec"] | {"nodeName": node},
    }
    running.kubectl("create", "-f", "-", stdin=json.dumps(pod))
    ready = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
    running.kubectl("patch", "pod", f"small-{ordinal}", "--subresource=status", "-p", json.dumps(ready))


async def until_one_pool_is_left(running: Stack, what: str) -> None:
    async def is_one() -> bool:
        return len(await running.pools()) == 1

    await until(is_one, what, 90)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("node_api", "strategy", "resource"),
    [("machine", "single", "nvidia.com/gpu"), ("nodeclaim", "mixed", "nvidia.com/mig-1g.10gb")],
)
async def test_eight_copies_share_two_nodes_and_seven_need_one(node_api: str, strategy: str, resource: str) -> None:
    def divide(running: Stack) -> None:
        running.programs["simulator"].command.append(f"--mig-strategy={strategy}")

    async with stack(node_api, controller_flags=[f"--mig-strategy={strategy}"], prepare=divide) as running:
        claims = f"{node_api}s"
        running.kubectl("apply", "-f", "-", stdin=MANIFEST)
        await until(lambda: columns(running) == ["True", "True", "True"], "the three columns to be True", 150)

        (workspace,) = items(running, "workspaces")
        assert workspace["status"]["targetNodeCount"] == 2
        assert len(await running.pools()) == len(items(running, claims)) == 2
        assert {
            claim["metadata"]["annotations"]["kaito.sh/gpu-instance-profile"] for claim in items(running, claims)
        } == {"MIG1g"}
        nodes = items(running, "nodes")
        assert [node["status"]["allocatable"][resource] for node in nodes] == ["7", "7"]
        owner = stateful_set(running)
        assert owner["spec"]["replicas"] == 8
        (container,) = owner["spec"]["template"]["spec"]["containers"]
        assert container["resources"]["limits"] == {resource: "1"}

        full, other = sorted(node["metadata"]["name"] for node in nodes)
        for ordinal in range(8):
            add_pod(running, owner, ordinal, full if ordinal < 7 else other)
        running.kubectl("scale", "workspace", "small", "--replicas=7")
        await until(lambda: stateful_set(running)["spec"]["replicas"] == 7, "seven replicas")
        assert len(await running.pools()) == 2
        running.kubectl("delete", "pod", "small-7", "--grace-period=0", "--force")
        await until_one_pool_is_left(running, "the empty node to be given back")
        await until(lambda: len(items(running, "nodes")) == 1, "the node of the deleted pool to be deleted", 60)
        assert [node["metadata"]["name"] for node in items(running, "nodes")] == [full]
        assert columns(running) == ["True", "True", "True"]

        running.kubectl("delete", "workspace", "small", "--timeout=120s")
        assert await running.pools() == {}


SET_MANIFEST = """
apiVersion: kaito.sh/v1beta1
kind: InferenceSet
metadata: {name: small}
spec:
  replicas: 2
  nodeCountLimit: 2
  labelSelector: {matchLabels: {apps: small}}
  template:
    resource:
      instanceType: Standard_NC24ads_A100_v4
      partition: {mode: mig, profile: 1g.10gb}
    inference:
      preset: {name: qwen3.5-2b}
"""


@pytest.mark.timeout(240)
async def test_a_set_has_a_copy_on_every_slice_of_its_nodes() -> None:
    async with stack() as running:
        running.kubectl("apply", "-f", "-", stdin=SET_MANIFEST)

        def serving() -> list[str]:
            return running.kubectl("get", "inferenceset", "small").splitlines()[1].split()[1:3]

        await until(lambda: serving() == ["2", "2"], "two Workspaces to serve", 150)
        assert [each["spec"]["replicas"] for each in items(running, "statefulsets")] == [7, 7]
        assert len(await running.pools()) == len(items(running, "machines")) == 2
        running.kubectl("scale", "inferenceset", "small", "--replicas=1")
        await until(lambda: serving() == ["1", "1"], "one Workspace to be deleted", 60)
        await until_one_pool_is_left(running, "its node to be given back")
        running.kubectl("delete", "inferenceset", "small", "--timeout=120s")
        assert await running.pools() == {}


OWN_MANIFEST = """
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {name: small}
resource:
  count: 9
  partition: {mode: mig, profile: 1g.10gb}
  labelSelector: {matchLabels: {apps: small}}
inference:
  preset: {name: qwen3.5-2b}
"""


def add_node(running: Stack, name: str, slices: int) -> None:
    """Registers a node of the user with slices of one GPU, as its kubelet and the device plugin do."""
    own = {"apps": "small", "node.kubernetes.io/instance-type": "Standard_NC24ads_A100_v4"}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": own}}
    running.kubectl("create", "-f", "-", stdin=json.dumps(node))
    amounts = {"cpu": "24", "memory": "200Gi", "pods": "110", "nvidia.com/mig-1g.10gb": str(slices)}
    status = {"capacity": amounts, "allocatable": amounts, "conditions": [{"type": "Ready", "status": "True"}]}
    running.kubectl("patch", "node", name, "--subresource=status", "-p", json.dumps({"status": status}))
    running.kubectl("taint", "node", name, "node.kubernetes.io/not-ready-")


@pytest.mark.timeout(240)
async def test_copies_share_existing_nodes_with_different_numbers_of_slices() -> None:
    async with stack(controller_flags=["--node-api=byo"]) as running:
        add_node(running, "large", 7)
        running.kubectl("apply", "-f", "-", stdin=OWN_MANIFEST)

        def message() -> str:
            path = '{.status.conditions[?(@.type=="NodesReady")].message}'
            return running.kubectl("get", "workspace", "small", "-o", f"jsonpath={path}")

        await until(lambda: "1 of 2 nodes ready; they have the resources for 7 of 9 copies" in message(), "a message")
        assert items(running, "statefulsets") == []
        add_node(running, "small", 3)
        running.kubectl("wait", "workspace/small", "--for=condition=WorkspaceSucceeded", "--timeout=90s")
        assert stateful_set(running)["spec"]["replicas"] == 9
        (workspace,) = items(running, "workspaces")
        assert workspace["status"]["targetNodeCount"] == 2
        assert items(running, "machines") == []
