"""A model that is divided over two nodes, on a real API server with both binaries and the ARM simulator."""

import asyncio
import json
import time
from typing import Any

import pytest

from test.support.stack import Stack, stack, until

MANIFEST = """
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {name: phi}
resource:
  instanceType: Standard_NV36ads_A10_v5
  labelSelector: {matchLabels: {apps: phi}}
inference:
  preset: {name: phi-4}
"""


def items(running: Stack, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(running.kubectl("get", kind, "-o", "json"))["items"]
    return found


def columns(running: Stack) -> list[str]:
    return running.kubectl("get", "workspace", "phi").splitlines()[1].split()[2:5]


def all_true(running: Stack) -> bool:
    return columns(running) == ["True", "True", "True"]


def replicas(running: Stack) -> dict[str, int]:
    return {found["metadata"]["name"]: found["spec"]["replicas"] for found in items(running, "statefulsets")}


@pytest.mark.timeout(300)
async def test_a_copy_on_two_nodes_becomes_ready_and_a_lost_node_is_replaced_once() -> None:
    async with stack("machine") as running:
        running.kubectl("apply", "-f", "-", stdin=MANIFEST)
        await until(lambda: all_true(running), "the three columns to be True", 150)

        assert len(await running.pools()) == len(items(running, "machines")) == len(items(running, "nodes")) == 2
        assert replicas(running) == {"phi": 1, "phi-workers": 1}
        (service,) = (s for s in items(running, "services") if s["metadata"]["name"] == "phi")
        assert service["spec"]["selector"] == {"kaito.sh/workspace": "phi", "kaito.sh/group-role": "leader"}
        (policy,) = items(running, "networkpolicies")
        assert policy["metadata"]["name"] == "phi-group"
        (workspace,) = items(running, "workspaces")
        assert workspace["status"]["targetNodeCount"] == 2

        before = {machine["metadata"]["name"] for machine in items(running, "machines")}
        lost = min(before)
        running.kubectl("delete", "machine", lost, "--wait=false")
        most, seen, end = 0, set(before), time.monotonic() + 180
        while time.monotonic() < end and (len(seen) < 3 or columns(running) != ["True", "True", "True"]):
            seen |= {machine["metadata"]["name"] for machine in items(running, "machines")}
            most = max(most, len(await running.pools()))
            await asyncio.sleep(1)
        assert columns(running) == ["True", "True", "True"]
        assert len(seen) == 3, seen
        assert most == 2
        assert (before - {lost}) < {machine["metadata"]["name"] for machine in items(running, "machines")}

        running.kubectl("delete", "workspace", "phi", "--timeout=120s")
        assert await running.pools() == {}
        await until(lambda: replicas(running) == {}, "the StatefulSets to be deleted")
