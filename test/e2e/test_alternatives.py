"""Three instance types, two of them out of stock, on a real API server with both binaries as processes.

The simulated cloud runs 120 times faster than real time.
"""

import json
from typing import Any

import pytest

from test.support.stack import Stack, stack, until

A100, H100, A100_2 = "Standard_NC24ads_A100_v4", "Standard_NC40ads_H100_v5", "Standard_NC48ads_A100_v4"
MANIFEST = f"""
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {{name: coder}}
resource:
  instanceTypes: [{A100}, {H100}, {A100_2}]
  labelSelector: {{matchLabels: {{apps: coder}}}}
inference:
  preset: {{name: qwen2.5-coder-32b-instruct}}
"""


def workspace(running: Stack) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(running.kubectl("get", "workspace", "coder", "-o", "json"))
    return found


def is_ready(running: Stack) -> bool:
    conditions = workspace(running).get("status", {}).get("conditions", [])
    return any(c["type"] == "WorkspaceReady" and c["status"] == "True" for c in conditions)


async def creations(running: Stack) -> list[str]:
    """Names of the agent pools that were requested."""
    requests = await running.admin("GET", "requests")
    return [request["pool"] for request in requests if request["method"] == "PUT"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("node_api", ["machine", "nodeclaim"])
async def test_the_third_alternative_is_used(node_api: str) -> None:
    async with stack(node_api) as running:
        await running.admin("PUT", "capacity", {A100: 0, H100: 0})
        running.kubectl("apply", "-f", "-", stdin=MANIFEST)

        async def has_left_the_first() -> bool:
            return len(await creations(running)) >= 2

        await until(has_left_the_first, "the request of the second instance type")
        controller = running.programs["workspace-controller"]
        controller.kill()
        controller.start()
        await until(lambda: is_ready(running), "the Workspace to be Ready", 180)
        assert len(await creations(running)) == 3
        assert list((await running.pools()).values()) == ["Succeeded"]
        assert workspace(running)["status"]["instanceType"] == A100_2
        workload = running.kubectl("get", "statefulset", "coder", "-o", "json")
        assert "--tensor-parallel-size=2" in workload
        (node,) = json.loads(running.kubectl("get", "nodes", "-o", "json"))["items"]
        assert node["metadata"]["labels"]["node.kubernetes.io/instance-type"] == A100_2
