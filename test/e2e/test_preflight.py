"""Inputs that cannot run, on a real API server with both binaries and the simulator: no node is created."""

import json

import pytest

from test.support.stack import Stack, stack, until
from test.unit.workspace.input_cases import INPUTS, Input


def condition(running: Stack, name: str, kind: str = "ResourceReady") -> dict[str, str]:
    status = json.loads(running.kubectl("get", "workspace", name, "-o", "json")).get("status", {})
    found = [c for c in status.get("conditions", []) if c["type"] == kind]
    return found[0] if found else {"status": "", "reason": "", "message": ""}


def refused(running: Stack, given: Input) -> bool:
    found = condition(running, given.name)
    return (found["status"], found["reason"]) == ("False", given.reason) and given.words in found["message"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("node_api", ["machine", "nodeclaim"])
async def test_nothing_is_bought_for_an_input_that_cannot_run(node_api: str) -> None:
    """All inputs are stored: the webhook is off."""
    kind = "machines" if node_api == "machine" else "nodeclaims"
    async with stack(node_api) as running:
        objects = [each for given in INPUTS for each in (*given.objects, given.manifest())]
        unique = {(each["kind"], each["metadata"]["name"]): each for each in objects}
        items = {"apiVersion": "v1", "kind": "List", "items": list(unique.values())}
        running.kubectl("apply", "-f", "-", stdin=json.dumps(items))
        for given in INPUTS:
            await until(lambda given=given: refused(running, given), f"{given.row}: {condition(running, given.name)}")
            whole = condition(running, given.name, "WorkspaceReady")
            assert (whole["status"], whole["reason"]) == ("False", given.reason)
            print(f"{given.row}: {whole['reason']}: {whole['message']}")  # noqa: T201 - shown with -s
        assert json.loads(running.kubectl("get", kind, "-o", "json"))["items"] == []
        assert await running.pools() == {}

        # The cause is removed: the Workspace starts without an edit.
        given = next(given for given in INPUTS if given.row == "pull secret")
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "absent"},
            "type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": "eyJhdXRocyI6e319"},
        }
        running.kubectl("apply", "-f", "-", stdin=json.dumps(secret))
        await until(lambda: json.loads(running.kubectl("get", kind, "-o", "json"))["items"], "a claim")
