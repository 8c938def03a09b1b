"""What the workspace controller relies on: events of one object, the protection of an installation, refused fields."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from kaito.api import labels
from kaito.runtime.client import codec
from kaito.runtime.errors import api_error
from kaito.workspace import in_use_policy as guard
from kaito.workspace.failure import is_rejection

if TYPE_CHECKING:
    from test.contract.conftest import Server

CONFIG_MAPS = "/api/v1/namespaces/{ns}/configmaps"
POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
BINDINGS = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings"
PATIENCE = 150
"""Tries, a tenth of a second apart, until a real server has compiled a policy."""


async def test_events_of_one_object_are_listed_by_kind_and_name(server: Server) -> None:
    """Recorders of the core API wrote them; the controller reads them in the events.k8s.io group."""
    for number, (kind, name) in enumerate((("StatefulSet", "ws"), ("Pod", "ws"), ("StatefulSet", "other"))):
        event = {
            "metadata": {"name": f"e{number}"},
            "involvedObject": {"apiVersion": "apps/v1", "kind": kind, "name": name, "namespace": server.namespace},
            "type": "Warning",
            "reason": "FailedCreate",
            "message": f"number {number}",
            "lastTimestamp": "2030-01-01T00:00:00Z",
            "source": {"component": "statefulset-controller"},
        }
        await server.ok("POST", "/api/v1/namespaces/{ns}/events", event)
    path = "/apis/events.k8s.io/v1/namespaces/{ns}/events"
    found = await server.ok("GET", path, fieldSelector="regarding.kind=StatefulSet,regarding.name=ws")
    (only,) = found["items"]
    assert (only["note"], only["reason"], only["type"]) == ("number 0", "FailedCreate", "Warning")
    assert only["deprecatedLastTimestamp"] == "2030-01-01T00:00:00Z"
    assert only["regarding"]["kind"] == "StatefulSet"


@pytest.mark.parametrize("by", ["name", "label"])
async def test_marked_objects_cannot_be_deleted_while_the_guard_is_there(server: Server, by: str) -> None:
    """In the namespace of the controller, and in namespaces with the label; not in those of users."""
    namespace = server.namespace if by == "name" else "kaito-system"
    if by == "label":
        mark = {"metadata": {"labels": {labels.INSTALLATION: labels.TRUE}}}
        await server.ok("PATCH", "/api/v1/namespaces/{ns}", mark, "application/merge-patch+json")

    async def make(name: str, marks: dict[str, str]) -> None:
        await server.ok("POST", CONFIG_MAPS, {"metadata": {"name": name, "labels": marks}})

    await make("ours", {labels.INSTALLATION: labels.TRUE})
    await make("theirs", {labels.INSTALLATION: "false"})
    await make("plain", {})
    users = "/api/v1/namespaces/default/configmaps"
    user = {"name": f"user-{server.namespace}", "labels": {labels.INSTALLATION: labels.TRUE}}
    await server.ok("POST", users, {"metadata": user})
    await server.ok("POST", POLICIES, codec.for_apply(guard.policy(namespace)))
    await server.ok("POST", BINDINGS, codec.for_apply(guard.binding()))
    try:
        for _ in range(PATIENCE):
            refused = await server.call("DELETE", f"{CONFIG_MAPS}/ours", dryRun="All")
            if refused.status == 403:
                break
            await asyncio.sleep(0.1)
        refused = await server.call("DELETE", f"{CONFIG_MAPS}/ours")
        assert refused.status == 403
        assert guard.MESSAGE in refused.body["message"]
        everything = await server.call("DELETE", CONFIG_MAPS, labelSelector=labels.INSTALLATION)
        assert everything.status == 403
        await server.ok("DELETE", f"{CONFIG_MAPS}/plain")
        await server.ok("DELETE", f"{users}/{user['name']}")
        patch = {"data": {"edited": "yes"}}
        await server.ok("PATCH", f"{CONFIG_MAPS}/ours", patch, "application/merge-patch+json")
    finally:
        await server.ok("DELETE", f"{BINDINGS}/{guard.POLICY_NAME}")
        await server.ok("DELETE", f"{POLICIES}/{guard.POLICY_NAME}")
    for _ in range(PATIENCE):
        if (await server.call("DELETE", f"{CONFIG_MAPS}/ours")).status == 200:
            return
        await asyncio.sleep(0.1)
    raise AssertionError


async def test_an_applied_field_that_the_kind_does_not_have_is_judged_a_refusal(server: Server) -> None:
    """The status is 500, although the object is invalid."""
    container: dict[str, Any] = {"name": "server", "image": "example.com/server:1", "imagePulPolicy": "Always"}
    applied = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "typo"},
        "spec": {
            "serviceName": "typo",
            "selector": {"matchLabels": {"app": "typo"}},
            "template": {"metadata": {"labels": {"app": "typo"}}, "spec": {"containers": [container]}},
        },
    }
    path = "/apis/apps/v1/namespaces/{ns}/statefulsets/typo"
    answer = await server.call("PATCH", path, applied, "application/apply-patch+yaml", None, fieldManager="contract")
    assert answer.status in {400, 422, 500}
    assert "imagePulPolicy" in answer.body["message"]
    assert is_rejection(api_error(answer.status, answer.body))
