"""Spans of admissions, and the annotation with the trace that a new object gets."""

import base64
import json
import ssl
from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from kaito.runtime.certs import ServingContext
from kaito.runtime.certs.authority import new_authority, new_leaf
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.metrics import Metrics
from kaito.runtime.webhook import Admission, Webhook, WebhookServer
from test.support.recorded_spans import Recorded

ANNOTATION = "example.com/traceparent"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
NOW = datetime.now(UTC)


def validate(admission: Admission[ConfigMap]) -> None:
    if admission.object is not None and "bug" in admission.object.data:
        raise RuntimeError("bug")


class Served:
    def __init__(self, port: int, context: ssl.SSLContext, recorded: Recorded) -> None:
        self._url = f"https://127.0.0.1:{port}"
        self._context = context
        self._recorded = recorded

    async def post(
        self,
        path: str,
        *,
        annotations: Mapping[str, str] | None = None,
        data: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        operation: str = "CREATE",
        dry_run: bool = False,
    ) -> list[dict[str, Any]]:
        """The patch of the response."""
        obj: dict[str, Any] = {"metadata": {"name": "a", "namespace": "n"}, "data": dict(data or {})}
        if annotations is not None:
            obj["metadata"]["annotations"] = dict(annotations)
        request = {"uid": "u", "operation": operation, "object": obj, "namespace": "n", "name": "a", "dryRun": dry_run}
        review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
        async with (
            aiohttp.ClientSession() as http,
            http.post(self._url + path, json=review, headers=headers, ssl=self._context) as response,
        ):
            answer = json.loads(await response.read())["response"]
        return json.loads(base64.b64decode(answer["patch"])) if "patch" in answer else []

    def span(self) -> ReadableSpan:
        (span,) = self._recorded.take()
        return span


@pytest.fixture
async def served() -> AsyncGenerator[Served]:
    authority = new_authority("test", NOW)
    metrics, recorded = Metrics(), Recorded(ANNOTATION)
    serving = ServingContext(metrics)
    serving.load(new_leaf(authority, ["127.0.0.1"], NOW))
    server = WebhookServer(
        [
            Webhook(
                ConfigMap, finalizer="example.com/x", validate=validate, mutate_path="/default", validate_path="/check"
            )
        ],
        (),
        metrics=metrics,
        host="127.0.0.1",
        port=0,
        tracer=recorded.tracer,
    )
    await server.start(serving.context)
    assert server.port is not None
    yield Served(server.port, ssl.create_default_context(cadata=authority.certificate.decode()), recorded)
    await server.stop()


def context_of(span: ReadableSpan) -> str:
    context = span.get_span_context()
    assert context is not None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


async def test_a_new_object_gets_the_context_of_its_admission(served: Served) -> None:
    patch = await served.post("/default")
    span = served.span()
    assert (span.name, span.kind, span.parent) == ("POST /default", SpanKind.SERVER, None)
    found = dict(span.attributes or {})
    assert (found["admission.operation"], found["k8s.namespace.name"], found["admission.name"]) == ("CREATE", "n", "a")
    assert found["admission.allowed"] is True
    assert {operation["path"]: operation["value"] for operation in patch} == {
        "/metadata/annotations": {ANNOTATION: context_of(span)},
        "/metadata/finalizers": ["example.com/x"],
    }


async def test_the_header_of_the_api_server_is_the_parent(served: Served) -> None:
    patch = await served.post("/default", headers={"traceparent": PARENT}, annotations={"other": "1"})
    span = served.span()
    assert context_of(span).split("-")[1] == TRACE
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == PARENT.split("-")[2]
    values = [operation["value"] for operation in patch if "annotations" in operation["path"]]
    assert values == [context_of(span)]


async def test_a_context_that_the_client_has_set_is_kept_and_is_the_parent(served: Served) -> None:
    patch = await served.post("/default", annotations={ANNOTATION: PARENT})
    assert [operation["path"] for operation in patch] == ["/metadata/finalizers"]
    assert context_of(served.span()).split("-")[1] == TRACE


@pytest.mark.parametrize("options", [{"dry_run": True}, {"operation": "UPDATE"}])
async def test_neither_a_dry_run_nor_an_update_sets_the_annotation(served: Served, options: dict[str, Any]) -> None:
    patch = await served.post("/default", **options)
    assert [operation for operation in patch if "annotations" in operation["path"]] == []
    assert served.span().name == "POST /default"


async def test_a_bug_is_an_error_of_the_span(served: Served) -> None:
    await served.post("/check", data={"bug": "1"})
    span = served.span()
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "RuntimeError: bug")
    assert dict(span.attributes or {})["admission.allowed"] is False
