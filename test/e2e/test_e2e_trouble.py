"""Trouble in the cloud and on nodes: the columns turn False with the cause in words, and recover by themselves."""

import json

import pytest

from hack.stack import Stack, stack, until

MANIFEST = """
apiVersion: kaito.sh/v1alpha1
kind: Workspace
metadata: {name: phi}
resource:
  instanceType: "Standard_NC6s_v3"
  labelSelector: {matchLabels: {apps: phi}}
inference:
  preset: {name: phi-3-mini-128k-instruct}
"""


def condition(running: Stack, name: str) -> dict[str, str]:
    status = json.loads(running.kubectl("get", "workspace", "phi", "-o", "json")).get("status", {})
    found = [c for c in status.get("conditions", []) if c["type"] == name]
    return found[0] if found else {"status": "Unknown", "reason": "", "message": ""}


def is_true(running: Stack, name: str) -> bool:
    return condition(running, name)["status"] == "True"


@pytest.mark.timeout(240)
@pytest.mark.parametrize("node_api", ["machine", "nodeclaim"])
async def test_quota_and_a_node_that_fails_are_told_and_heal(node_api: str) -> None:
    async with stack(node_api) as running:
        await running.admin("POST", "faults", {"named": "quota", "times": None})
        running.kubectl("apply", "-f", "-", stdin=MANIFEST)

        await until(lambda: "quota" in condition(running, "ResourceReady")["message"].lower(), "the quota to be told")
        assert condition(running, "ResourceReady")["status"] == "False"
        assert "QuotaExceeded" in running.kubectl("describe", "workspace", "phi")
        assert await running.pools() == {}

        await running.admin("DELETE", "faults")
        await until(lambda: is_true(running, "WorkspaceReady"), "recovery from the quota")

        await running.admin("PUT", "knobs", {"not_ready": True})
        await until(lambda: condition(running, "ResourceReady")["status"] == "False", "the node's failure to be told")
        (node,) = json.loads(running.kubectl("get", "nodes", "-o", "json"))["items"]
        assert node["metadata"]["name"] in running.kubectl("describe", "workspace", "phi")

        await running.admin("PUT", "knobs", {"not_ready": False})
        await until(lambda: is_true(running, "ResourceReady"), "recovery of the node")
        assert len(await running.pools()) == 1
