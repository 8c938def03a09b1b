"""Deleting a Workspace whose machine the cloud does not delete, on a real API server."""

import json
from typing import Any

import pytest

from test.support.stack import Stack, stack, until

MANIFEST = """
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {name: locked}
resource:
  instanceType: Standard_NC6s_v3
  labelSelector: {matchLabels: {apps: locked}}
inference:
  template: {spec: {containers: [{name: server, image: example.com/server:1, command: [sleep, "100000"]}]}}
"""
LOCKED = (
    "The scope cannot perform delete operation because following scope(s) are locked. "
    "Please remove the lock and try again."
)
FAULT = {
    "method": "DELETE",
    "status": 409,
    "times": None,
    "body": {"error": {"code": "ScopeLocked", "message": LOCKED}},
}


def conditions(running: Stack) -> dict[str, dict[str, Any]]:
    found = json.loads(running.kubectl("get", "workspace", "locked", "-o", "json")).get("status", {})
    return {condition["type"]: condition for condition in found.get("conditions", [])}


def status(running: Stack, name: str) -> tuple[str, str]:
    condition = conditions(running).get(name, {"status": "", "reason": ""})
    return condition["status"], condition["reason"]


@pytest.mark.timeout(240)
async def test_a_lock_is_told_on_the_workspace_and_the_columns_are_false() -> None:
    async with stack() as running:
        running.kubectl("apply", "-f", "-", stdin=MANIFEST)
        await until(lambda: status(running, "WorkspaceReady")[0] == "True", "the Workspace to be ready")
        await running.admin("POST", "faults", FAULT)
        running.kubectl("delete", "workspace", "locked", "--wait=false")
        deleting = ("False", "WorkspaceDeleting")
        await until(lambda: status(running, "WorkspaceReady") == deleting, "the columns to be False", 10)
        for column in ("ResourceReady", "InferenceReady", "WorkspaceSucceeded"):
            assert status(running, column) == deleting

        await until(
            lambda: status(running, "WorkspaceDeleting") == ("True", "CloudRefusesDeletion"), "the lock to be reported"
        )
        assert LOCKED in conditions(running)["WorkspaceDeleting"]["message"]
        described = running.kubectl("describe", "workspace", "locked")
        assert "CloudRefusesDeletion" in described.split("Events:")[-1]
        assert len(await running.pools()) == 1

        await running.admin("DELETE", "faults")
        running.programs["gpu-provisioner"].kill()  # the next try may be minutes away
        running.programs["gpu-provisioner"].start()
        await until(lambda: "locked" not in running.kubectl("get", "workspaces"), "the Workspace to go", 90)
        assert await running.pools() == {}
