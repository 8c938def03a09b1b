"""Admission webhooks: matching, changing, refusing, failing."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest

from kaito.apiserver import ApiServer
from kaito.apiserver.webhook_client import WebhookError

if TYPE_CHECKING:
    from test.unit.apiserver.conftest import Client

MAPS = "/api/v1/namespaces/default/configmaps"
HOOKS = "/apis/admissionregistration.k8s.io/v1"
Review = dict[str, Any]
pytestmark = pytest.mark.virtual_time


class Webhook:
    """A webhook of the same process: records its reviews, returns the given answer."""

    def __init__(self) -> None:
        self.requested: list[Review] = []
        self.answer: Callable[[Review], Review] = lambda _request: {"allowed": True}

    async def __call__(self, config: Review, review: Review) -> Review:
        del config
        self.requested.append(review["request"])
        response = {"uid": review["request"]["uid"], **self.answer(review["request"])}
        return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}


@pytest.fixture
def webhook() -> Webhook:
    return Webhook()


@pytest.fixture
def server(webhook: Callable[[Review, Review], Awaitable[Review]]) -> ApiServer:
    return ApiServer(seed=1, webhooks=webhook)


async def configure(client: Client, kind: str, **more: Any) -> None:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]}
    hook = {
        "name": "check.example.com",
        "rules": [rule],
        "clientConfig": {"service": {"namespace": "default", "name": "hooks"}},
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        **more,
    }
    path = f"{HOOKS}/{kind.lower()}webhookconfigurations"
    await client.ok("POST", path, {"metadata": {"name": kind.lower()}, "webhooks": [hook]})


async def test_a_refusal_names_the_webhook_and_its_words(client: Client, webhook: Webhook) -> None:
    await configure(client, "Validating")
    webhook.answer = lambda _request: {
        "allowed": False,
        "status": {"message": "no", "code": 403, "reason": "Forbidden"},
    }
    answer = await client.call("POST", MAPS, {"metadata": {"name": "a"}})
    assert answer.status == 403
    assert answer.body["message"] == 'admission webhook "check.example.com" denied the request: no'
    assert (await client.call("GET", f"{MAPS}/a")).status == 404


async def test_a_patch_is_applied_before_the_object_is_stored(client: Client, webhook: Webhook) -> None:
    await configure(client, "Mutating")
    patch = [{"op": "add", "path": "/data", "value": {"added": "yes"}}]
    encoded = base64.b64encode(json.dumps(patch).encode()).decode()
    webhook.answer = lambda _request: {
        "allowed": True,
        "patchType": "JSONPatch",
        "patch": encoded,
        "warnings": ["mind"],
    }
    answer = await client.call("POST", MAPS, {"metadata": {"name": "a"}})
    assert answer.body["data"] == {"added": "yes"}
    assert answer.headers["warning"] == '299 - "mind"'


async def test_a_webhook_sees_both_states_and_the_operation(client: Client, webhook: Webhook) -> None:
    await client.ok("POST", MAPS, {"metadata": {"name": "a"}, "data": {"x": "1"}})
    await configure(client, "Validating")
    await client.ok("PATCH", f"{MAPS}/a", {"data": {"x": "2"}}, "application/merge-patch+json")
    await client.ok("DELETE", f"{MAPS}/a")
    update, delete = webhook.requested
    assert (update["operation"], update["object"]["data"], update["oldObject"]["data"]) == (
        "UPDATE",
        {"x": "2"},
        {"x": "1"},
    )
    assert (delete["operation"], delete["object"], delete["oldObject"]["data"]) == ("DELETE", None, {"x": "2"})


async def test_selectors_and_conditions_narrow_what_is_requested(client: Client, webhook: Webhook) -> None:
    condition = {"name": "big", "expression": "object.metadata.name.startsWith('b')"}
    await configure(client, "Validating", objectSelector={"matchLabels": {"l": "1"}}, matchConditions=[condition])
    for name, labels in (("b1", {"l": "1"}), ("a1", {"l": "1"}), ("b2", {})):
        await client.ok("POST", MAPS, {"metadata": {"name": name, "labels": labels}})
    await client.ok("POST", "/api/v1/namespaces/default/secrets", {"metadata": {"name": "b", "labels": {"l": "1"}}})
    assert [request["name"] for request in webhook.requested] == ["b1"]


@pytest.mark.parametrize(("policy", "status"), [("Fail", 500), ("Ignore", 201)])
async def test_failure_policy_decides_when_nobody_answers(
    client: Client, webhook: Webhook, policy: str, status: int
) -> None:
    await configure(client, "Validating", failurePolicy=policy)

    def broken(_request: Review) -> Review:
        raise WebhookError("connection refused")

    webhook.answer = broken
    answer = await client.call("POST", MAPS, {"metadata": {"name": "a"}})
    assert answer.status == status
    if status == 500:
        assert 'failed calling webhook "check.example.com": connection refused' in answer.body["message"]


async def test_a_service_without_a_route_is_said_so() -> None:
    from test.unit.apiserver.conftest import Client as Requests

    client = Requests(ApiServer())
    await configure(client, "Validating")
    answer = await client.call("POST", MAPS, {"metadata": {"name": "a"}})
    assert answer.status == 500
    assert "no route to service default/hooks" in answer.body["message"]
