"""A manager with webhooks: certificate, injection, readiness; and a metrics port that authenticates its readers."""

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kaito.apiserver import ApiServer, Fault
from kaito.runtime.client import Client
from kaito.runtime.kinds import ConfigMap, Secret, SubjectAccessReview, TokenReview, ValidatingWebhookConfiguration
from kaito.runtime.manager import Manager, Settings
from kaito.runtime.manager.http.metrics_auth import MetricsAuthorizer
from kaito.runtime.tasks import TaskScope
from kaito.runtime.testing import InMemoryTransport, World
from kaito.runtime.webhook import Admission, Webhook


def validate(admission: Admission[ConfigMap]) -> None:
    if admission.object is not None and admission.object.data.get("bad"):
        admission.deny("data.bad", "is bad")


LOCAL = Settings(
    metrics_bind_address="0",
    health_probe_bind_address="127.0.0.1:0",
    webhook_bind_address="127.0.0.1",
    webhook_port=0,
    webhook_hosts=("127.0.0.1",),
)


def manager_for(server: ApiServer, settings: Settings = LOCAL) -> Manager:
    return Manager(
        settings, webhooks=[Webhook(ConfigMap, validate=validate)], transport=InMemoryTransport(server), name="op"
    )


def review(**data: str) -> bytes:
    request = {"uid": "u", "operation": "CREATE", "object": {"metadata": {"name": "a"}, "data": data}}
    return json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).encode()


async def ask(port: int | None, bundle: bytes, body: bytes) -> Any:
    context = ssl.create_default_context(cadata=bundle.decode())
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as http:
        url = f"https://127.0.0.1:{port}/validate--v1-configmap"
        async with http.post(url, data=body, headers={"content-type": "application/json"}) as response:
            return json.loads(await response.read())["response"]


async def test_the_manager_serves_with_a_certificate_the_api_server_was_told_about() -> None:
    server = ApiServer(seed=1)
    client = Client(InMemoryTransport(server), field_manager="test")
    entry = {
        "name": "op.example.com",
        "clientConfig": {"url": "https://127.0.0.1:1/validate--v1-configmap"},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "failurePolicy": "Ignore",
        "rules": [],
    }
    await client.create(
        ValidatingWebhookConfiguration.model_validate({"metadata": {"name": "op"}, "webhooks": [entry]})
    )
    async with manager_for(server) as manager:
        assert manager.readyz.report(verbose=True).text.splitlines()[-3:] == [
            "[+]webhook-cert ok",
            "[+]webhook-listening ok",
            "readyz check passed",
        ]
        encoded = (await client.get(ValidatingWebhookConfiguration, "op")).webhooks[0].client_config.ca_bundle
        bundle = base64.b64decode(encoded or "")
        assert bundle == (await client.get(Secret, "op-webhook-cert", "default")).value("ca.crt")
        assert (await ask(manager.webhook_port, bundle, review()))["allowed"] is True
        assert (await ask(manager.webhook_port, bundle, review(bad="1")))["allowed"] is False
    assert not manager.readyz.report().healthy


async def test_without_a_certificate_the_process_lives_and_is_not_ready(tmp_path: Path) -> None:
    server = ApiServer(seed=1)
    settings = LOCAL.model_copy(update={"webhook_cert_dir": tmp_path})
    manager = manager_for(server, settings)
    async with TaskScope("test") as scope:
        scope.spawn(manager.start(), name="manager")
        async with asyncio.timeout(10):
            while str(tmp_path) not in (text := manager.readyz.report().text):  # noqa: ASYNC110 - polled
                await asyncio.sleep(0.01)
        assert "[-]webhook-listening failed: not listening yet" in text
        assert manager.healthz.report().healthy


class Reviews:
    """Answers reviews as an API server does; ours keeps none."""

    def __init__(self, world: World) -> None:
        self.kinds: list[str] = []
        self.client = Client(world.transport(), field_manager="test")
        self.client.create = self._create  # type: ignore[method-assign,assignment] # pyright: ignore[reportAttributeAccessIssue]
        self.fail: Exception | None = None

    async def _create(self, review: Any) -> Any:
        self.kinds.append(review.kind)
        if self.fail is not None:
            raise self.fail
        if isinstance(review, TokenReview):
            known = review.spec.token in {"prometheus", "nosy"}
            return review.evolve(status={"authenticated": known, "user": {"username": review.spec.token}})
        assert isinstance(review, SubjectAccessReview)
        attributes = review.spec.non_resource_attributes
        assert attributes is not None
        allowed = review.spec.user == "prometheus" and (attributes.path, attributes.verb) == ("/metrics", "get")
        return review.evolve(status={"allowed": allowed})


async def test_the_metrics_port_lets_in_who_may_read(world: World) -> None:
    reviews = Reviews(world)
    authorizer = MetricsAuthorizer(reviews.client, lambda: 0.5)
    assert await authorizer.authorize("", "/metrics", "GET") == 401
    assert await authorizer.authorize("Basic eDp5", "/metrics", "GET") == 401
    assert reviews.kinds == []
    assert await authorizer.authorize("Bearer stranger", "/metrics", "GET") == 401
    assert await authorizer.authorize("Bearer nosy", "/metrics", "GET") == 403
    assert await authorizer.authorize("Bearer prometheus", "/debug/tasks", "GET") == 403
    assert await authorizer.authorize("Bearer prometheus", "/metrics", "GET") == 200
    reviews.kinds.clear()
    assert await authorizer.authorize("Bearer prometheus", "/metrics", "GET") == 200
    assert reviews.kinds == []
    await asyncio.sleep(61)
    assert await authorizer.authorize("Bearer prometheus", "/metrics", "GET") == 200
    assert reviews.kinds == ["TokenReview"]
    assert await authorizer.authorize("Bearer nosy", "/metrics", "GET") == 403
    assert reviews.kinds == ["TokenReview", "TokenReview", "SubjectAccessReview"]


async def test_a_decision_of_the_metrics_port_holds_for_one_extra_only(world: World) -> None:
    client = Client(world.transport(), field_manager="test")

    async def create(review: Any) -> Any:
        if isinstance(review, TokenReview):
            user = {"username": "prometheus", "extra": {"scopes": [review.spec.token]}}
            return review.evolve(status={"authenticated": True, "user": user})
        return review.evolve(status={"allowed": review.spec.extra == {"scopes": ["metrics"]}})

    client.create = create  # type: ignore[method-assign,assignment] # pyright: ignore[reportAttributeAccessIssue]
    authorizer = MetricsAuthorizer(client, lambda: 0.5)
    assert await authorizer.authorize("Bearer metrics", "/metrics", "GET") == 200
    assert await authorizer.authorize("Bearer none", "/metrics", "GET") == 403


async def test_an_api_server_without_an_answer_is_a_500(world: World) -> None:
    reviews = Reviews(world)
    reviews.fail = TimeoutError()
    assert await MetricsAuthorizer(reviews.client, lambda: 0.5).authorize("Bearer x", "/metrics", "GET") == 500


@asynccontextmanager
async def unverified() -> AsyncGenerator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as http:
        yield http


async def test_a_secured_metrics_port_speaks_tls_and_asks() -> None:
    server = ApiServer(seed=1)
    server.inject(Fault(method="POST", times=None, status=403, message="no reviews for you"))
    settings = Settings(metrics_bind_address="127.0.0.1:0", health_probe_bind_address="0", metrics_secure=True)
    async with Manager(settings, transport=InMemoryTransport(server)) as manager, unverified() as http:
        url = f"https://127.0.0.1:{manager.metrics_port}/metrics"
        async with http.get(url) as response:
            assert response.status == 401
        async with aiohttp.ClientSession() as plain:
            with pytest.raises(aiohttp.ClientError):
                await plain.get(url.replace("https", "http"))
