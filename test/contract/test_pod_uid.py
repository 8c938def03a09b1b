"""A status write that carries a UID reaches only the object with that UID, on both servers."""

from __future__ import annotations

import pytest

from test.contract.conftest import MERGE, STRATEGIC, Server

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p"},
    "spec": {"containers": [{"name": "c", "image": "i"}]},
}


@pytest.mark.parametrize("content", [MERGE, STRATEGIC])
@pytest.mark.parametrize("path", ["/status", ""])
async def test_a_patch_for_another_uid_is_rejected(server: Server, content: str, path: str) -> None:
    pods = "/api/v1/namespaces/{ns}/pods"
    made = await server.ok("POST", pods, POD)
    body = {"metadata": {"uid": "11111111-2222-3333-4444-555555555555"}, "status": {"message": "of another pod"}}
    answer = await server.call("PATCH", f"{pods}/p{path}", body, content)
    assert (answer.status, answer.body["reason"]) == (422, "Invalid")
    assert {cause["field"] for cause in answer.body["details"]["causes"]} == {"metadata.uid"}
    mine = {"metadata": {"uid": made["metadata"]["uid"]}, "status": {"message": "of this pod"}}
    await server.ok("PATCH", f"{pods}/p/status", mine, content)
    found = await server.ok("GET", f"{pods}/p")
    assert found["status"]["message"] == "of this pod"
