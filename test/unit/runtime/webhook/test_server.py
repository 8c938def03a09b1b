"""The webhook server over TLS on 127.0.0.1: limits, deadlines, certificates that change while it serves."""

import asyncio
import io
import json
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kaito.runtime.certs import CertificateFiles, ServingContext
from kaito.runtime.certs.authority import KeyPair, new_authority, new_leaf
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.metrics import Metrics
from kaito.runtime.webhook import Admission, Conversion, Webhook, WebhookServer
from kaito.runtime.webhook.server import ADMISSION_BYTES

NOW = datetime.now(UTC)
CA = new_authority("test", NOW)


async def validate(admission: Admission[ConfigMap]) -> None:
    obj = admission.object
    if obj is None:
        return
    if obj.data.get("slow"):
        await asyncio.sleep(60)
    if obj.data.get("bug"):
        _ = obj.data["missing"]
    if obj.data.get("bad"):
        admission.deny("data.bad", "is bad")


class Served:
    def __init__(self, server: WebhookServer, metrics: Metrics, serving: ServingContext) -> None:
        self.server = server
        self.metrics = metrics
        self.serving = serving

    async def post(
        self,
        body: bytes,
        *,
        path: str = "/validate--v1-configmap",
        content_type: str = "application/json",
        query: str = "",
    ) -> dict[str, Any]:
        async with session() as http:
            url = f"https://127.0.0.1:{self.server.port}{path}{query}"
            async with http.post(url, data=io.BytesIO(body), headers={"content-type": content_type}) as response:
                assert response.status == 200
                answer: dict[str, Any] = json.loads(await response.read())
                return answer


@asynccontextmanager
async def session(*authorities: KeyPair) -> AsyncGenerator[aiohttp.ClientSession]:
    trusted = b"".join(each.certificate for each in authorities or (CA,)).decode()
    context = ssl.create_default_context(cadata=trusted)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as http:
        yield http


@pytest.fixture
async def served() -> AsyncGenerator[Served]:
    metrics = Metrics()
    serving = ServingContext(metrics)
    serving.load(new_leaf(CA, ["127.0.0.1"], NOW))
    server = WebhookServer([Webhook(ConfigMap, validate=validate)], (), metrics=metrics, host="127.0.0.1", port=0)
    await server.start(serving.context)
    yield Served(server, metrics, serving)
    await server.stop()


def review(**data: str) -> bytes:
    obj = {"metadata": {"name": "a"}, "data": data}
    request = {"uid": "u-1", "operation": "CREATE", "object": obj}
    return json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).encode()


async def test_questions_are_answered_and_counted(served: Served) -> None:
    assert (await served.post(review()))["response"]["allowed"] is True
    answer = await served.post(review(bad="1"))
    assert answer["response"]["status"]["message"] == 'ConfigMap "a" is invalid: data.bad: is bad'
    labels = {"webhook": "/validate--v1-configmap"}
    requests = "controller_runtime_webhook_requests_total"
    assert served.metrics.value(requests, **labels, code="200") == 2
    assert served.metrics.value(requests, **labels, code="500") == 0
    assert served.metrics.value("controller_runtime_webhook_requests_in_flight", **labels) == 0
    assert served.metrics.value("controller_runtime_webhook_latency_seconds_count", **labels) == 2


async def test_a_bug_is_told_counted_and_survived(served: Served) -> None:
    answer = await served.post(review(bug="1"))
    assert answer["response"]["status"]["code"] == 500
    assert "KeyError: 'missing'" in answer["response"]["status"]["message"]
    assert served.metrics.value("controller_runtime_webhook_panics_total") == 1
    assert (await served.post(review()))["response"]["allowed"] is True


async def test_a_slow_answer_is_refused_before_the_caller_gives_up(served: Served) -> None:
    answer = await served.post(review(slow="1"), query="?timeout=0.2s")
    assert answer["response"]["uid"] == "u-1"
    assert answer["response"]["status"]["message"] == "no response within 0.1 s"


@pytest.mark.conformance(51)
@pytest.mark.parametrize(
    ("body", "content_type", "code", "uid"),
    [
        (b"", "application/json", 400, ""),
        (b"nonsense", "application/json", 400, ""),
        (review(), "text/plain", 400, ""),
        (b'{"request":{"uid":"u-9","object":"' + b"x" * ADMISSION_BYTES, "application/json", 413, "u-9"),
    ],
)
async def test_a_bad_body_gets_a_valid_review(
    served: Served, body: bytes, content_type: str, code: int, uid: str
) -> None:
    answer = await served.post(body, content_type=content_type)
    assert (answer["apiVersion"], answer["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    assert answer["response"]["uid"] == uid
    assert answer["response"]["allowed"] is False
    assert answer["response"]["status"]["code"] == code


@pytest.mark.conformance(53)
async def test_a_swapped_certificate_serves_new_connections_and_old_ones_live_on(
    served: Served, tmp_path: Path
) -> None:
    other = new_authority("other", NOW)
    for number, pair in enumerate([new_leaf(CA, ["127.0.0.1"], NOW), new_leaf(other, ["127.0.0.1"], NOW)]):
        version = tmp_path / f"..data-{number}"
        version.mkdir()
        (version / "tls.crt").write_bytes(pair.certificate)
        (version / "tls.key").write_bytes(pair.key)
    link = tmp_path / "certs"
    link.symlink_to(tmp_path / "..data-0")
    watcher = CertificateFiles(link, served.serving)
    await watcher.reload()
    async with session() as old, session(other) as new:
        url = f"https://127.0.0.1:{served.server.port}/validate--v1-configmap"
        headers = {"content-type": "application/json"}

        async def ask(http: aiohttp.ClientSession) -> Any:
            async with http.post(url, data=review(), headers=headers) as response:
                return json.loads(await response.read())["response"]["allowed"]

        assert await ask(old)
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await ask(new)
        swap = tmp_path / "swap"
        swap.symlink_to(tmp_path / "..data-1")
        swap.rename(link)
        await watcher.reload()
        assert await ask(new)
        assert await ask(old)  # on its old connection
        async with session() as fresh:
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await ask(fresh)


@pytest.mark.conformance(53)
async def test_a_pair_that_does_not_fit_keeps_the_old_one(served: Served, tmp_path: Path) -> None:
    watcher = CertificateFiles(tmp_path, served.serving)
    await watcher.reload()
    assert str(tmp_path) in served.serving.problem
    (tmp_path / "tls.crt").write_bytes(new_leaf(CA, ["127.0.0.1"], NOW).certificate)
    (tmp_path / "tls.key").write_bytes(new_leaf(CA, ["127.0.0.1"], NOW).key)
    await watcher.reload()
    assert "not valid or do not match" in served.serving.problem
    assert (await served.post(review()))["response"]["allowed"] is True
    assert served.metrics.value("certwatcher_read_certificate_errors_total") == 2


def test_the_readiness_of_a_certificate() -> None:
    serving = ServingContext(Metrics())
    assert serving.check(NOW) == "no certificate yet"
    leaf = new_leaf(CA, ["localhost"], NOW)
    serving.load(leaf)
    assert serving.check(NOW) is None
    assert "expired" in (serving.check(leaf.expires_at) or "")


def test_paths_and_kinds_are_used_once() -> None:
    metrics = Metrics()
    twice = [Webhook(ConfigMap, validate=validate), Webhook(ConfigMap, validate=validate)]
    with pytest.raises(ConfigurationError, match="share the path"):
        WebhookServer(twice, (), metrics=metrics, host=None, port=0)
    with pytest.raises(ConfigurationError, match="two conversions"):
        WebhookServer((), [Conversion(ConfigMap), Conversion(ConfigMap)], metrics=metrics, host=None, port=0)
