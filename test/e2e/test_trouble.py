"""Trouble in the cloud and on nodes: the columns turn False with the cause, and recover automatically."""

import json
from typing import Any

import pytest

from test.support.stack import Stack, stack, until

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

        await until(
            lambda: "quota" in condition(running, "ResourceReady")["message"].lower(), "the quota to be reported"
        )
        assert condition(running, "ResourceReady")["status"] == "False"
        assert "QuotaExceeded" in running.kubectl("describe", "workspace", "phi")
        assert await running.pools() == {}

        await running.admin("DELETE", "faults")
        await until(lambda: is_true(running, "WorkspaceReady"), "recovery from the quota")

        await running.admin("PUT", "knobs", {"not_ready": True})
        await until(
            lambda: condition(running, "ResourceReady")["status"] == "False", "the node's failure to be reported"
        )
        (node,) = json.loads(running.kubectl("get", "nodes", "-o", "json"))["items"]
        assert node["metadata"]["name"] in running.kubectl("describe", "workspace", "phi")

        await running.admin("PUT", "knobs", {"not_ready": False})
        await until(lambda: is_true(running, "ResourceReady"), "recovery of the node")
        assert len(await running.pools()) == 1


TWO_SIZES = """
apiVersion: karpenter.sh/v1
kind: NodeClaim
metadata: {name: ws1, labels: {karpenter.sh/nodepool: kaito}}
spec:
  nodeClassRef: {group: kaito.sh, kind: KaitoNodeClass, name: default}
  requirements:
  - {key: node.kubernetes.io/instance-type, operator: In, values: [Standard_NC24ads_A100_v4, Standard_NC40ads_H100_v5]}
  - {key: karpenter.sh/capacity-type, operator: In, values: [on-demand]}
  resources: {requests: {storage: 100Gi}}
"""


@pytest.mark.timeout(240)
async def test_a_size_without_quota_leads_to_the_next_listed_one() -> None:
    async with stack("nodeclaim") as running:
        await running.admin("POST", "faults", {"named": "quota", "times": 1})
        running.kubectl("apply", "-f", "-", stdin=TWO_SIZES)

        def claim() -> dict[str, Any]:
            found: dict[str, Any] = json.loads(running.kubectl("get", "nodeclaim", "ws1", "-o", "json"))
            return found

        def is_ready() -> bool:
            conditions = claim().get("status", {}).get("conditions", [])
            return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

        await until(is_ready, "the claim to become ready with the second size")
        labels, annotations = claim()["metadata"]["labels"], claim()["metadata"].get("annotations", {})
        assert labels["node.kubernetes.io/instance-type"] == "Standard_NC40ads_H100_v5"
        assert labels["karpenter.sh/capacity-type"] == "on-demand"
        assert "kaito.sh/launch-record" not in annotations
        assert "OfferRefused" in running.kubectl("describe", "nodeclaim", "ws1")
        running.kubectl("delete", "nodeclaim", "ws1", "--timeout=60s")
        assert await running.pools() == {}


@pytest.mark.timeout(240)
async def test_a_lock_in_the_cloud_is_told_on_claim_and_workspace() -> None:
    async with stack("nodeclaim", provisioner_flags=["--default-termination-grace-period=5s"]) as running:
        running.kubectl("apply", "-f", "-", stdin=MANIFEST)
        await until(lambda: is_true(running, "WorkspaceReady"), "the workspace to be ready", seconds=120)
        locked = {
            "error": {"code": "ScopeLocked", "message": "The scope cannot perform delete operation: it is locked"}
        }
        await running.admin(
            "POST", "faults", {"name": "lock", "method": "DELETE", "status": 409, "times": None, "body": locked}
        )
        running.kubectl("delete", "workspace", "phi", "--wait=false")

        def terminating() -> dict[str, str]:
            (claim,) = json.loads(running.kubectl("get", "nodeclaims", "-o", "json"))["items"]
            found: dict[str, dict[str, str]] = {c["type"]: c for c in claim.get("status", {}).get("conditions", [])}
            assert found["Ready"]["status"] == "False" or "InstanceTerminating" not in found
            return found.get("InstanceTerminating", {"status": ""})

        await until(lambda: terminating()["status"] == "False", "the refusal on the claim")
        assert terminating()["reason"] == "BlockedByCloud"
        assert "it is locked" in terminating()["message"]
        await until(lambda: "it is locked" in condition(running, "WorkspaceDeleting")["message"], "it on the workspace")
        events = json.loads(running.kubectl("get", "events", "-A", "-o", "json"))["items"]
        warned = [e for e in events if e["reason"] == "BlockedByCloud" and e["involvedObject"]["kind"] == "NodeClaim"]
        assert [event["type"] for event in warned] == ["Warning"]
