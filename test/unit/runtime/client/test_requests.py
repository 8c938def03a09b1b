"""What requests look like: paths, patches, headers, errors. No server involved."""

import random
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest
import structlog

from kaito.runtime.cache.reflector.collection import refusal
from kaito.runtime.client import Client, MergePatch, Reply, user_agent
from kaito.runtime.client.patch import contains, is_object, merge_diff, pointer
from kaito.runtime.client.path import field_query, label_query, resource_path, with_query
from kaito.runtime.client.sender import failure
from kaito.runtime.client.transport import NO_HEADERS, REQUEST_SECONDS
from kaito.runtime.errors import NotFound, ServerError, TooManyRequests, UnreadableObject
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.meta import LabelSelector, ObjectMeta
from kaito.runtime.tracing import Attribute, SpanKind


class Scripted:
    """A transport that gives the same answer to everything, and remembers what it was asked."""

    host = "example:443"

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.queried: list[tuple[str, str, dict[str, str], bytes | None]] = []

    async def request(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] = NO_HEADERS,
        body: bytes | None = None,
        timeout: float = REQUEST_SECONDS,
    ) -> Reply:
        self.queried.append((method, target, dict(headers), body))
        return self.reply

    def stream(self, method: str, target: str, **options: Any) -> Any:
        raise NotImplementedError

    async def close(self) -> None:
        pass


CONFIG = b'{"metadata": {"name": "a", "namespace": "default", "resourceVersion": "7"}, "data": {"k": "v"}}'


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ({"api_version": "v1", "plural": "pods"}, "/api/v1/pods"),
        (
            {"api_version": "apps/v1", "plural": "deployments", "namespace": "n"},
            "/apis/apps/v1/namespaces/n/deployments",
        ),
        (
            {"api_version": "v1", "plural": "pods", "namespace": "n", "name": "p", "subresource": "status"},
            "/api/v1/namespaces/n/pods/p/status",
        ),
        (
            {"api_version": "rbac.authorization.k8s.io/v1", "plural": "clusterroles", "name": "system:node"},
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
        ),
    ],
)
def test_paths(arguments: dict[str, str], path: str) -> None:
    assert resource_path(**arguments) == path


def test_queries_omit_empty_parameters() -> None:
    assert with_query("/x", {"a": None, "b": ""}) == "/x"
    assert with_query("/x", {"force": True, "limit": 5, "labelSelector": "a=b,c in (d)"}) == (
        "/x?force=true&limit=5&labelSelector=a%3Db%2Cc%20in%20%28d%29"
    )


def test_selectors_in_any_spelling() -> None:
    assert label_query({"b": "2", "a": "1"}) == "a=1,b=2"
    assert label_query(LabelSelector(match_labels={"a": "1"})) == "a=1"
    assert label_query("a,!b") == "a,!b"
    assert label_query(None) == ""
    assert field_query({"spec.nodeName": "n", "metadata.name": "x"}) == "metadata.name=x,spec.nodeName=n"


def test_merge_diff_is_the_smallest_patch() -> None:
    before = {"same": 1, "gone": 2, "deep": {"x": 1, "y": [1, 2]}, "list": [1]}
    after = {"same": 1, "deep": {"x": 1, "y": [1, 3]}, "list": [1], "new": {"z": None}}
    assert merge_diff(before, after) == {"gone": None, "deep": {"y": [1, 3]}, "new": {"z": None}}
    assert merge_diff(before, before) == {}


def merged(target: object, patch: object) -> object:
    """RFC 7386, section 2, as it stands there."""
    if not is_object(patch):
        return patch
    result: dict[str, Any] = dict(target) if is_object(target) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def some_json(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.randrange(6 if depth < 3 else 3)
    if kind < 3:
        return rng.choice([0, 1, "", "x", True, False])
    if kind == 3:
        return [some_json(rng, depth + 1) for _ in range(rng.randrange(3))]
    return {name: some_json(rng, depth + 1) for name in "abcd" if rng.random() < 0.6}


def test_applying_the_diff_always_gives_the_second_state() -> None:
    rng = random.Random(7)
    for _ in range(2000):
        before, after = ({"root": some_json(rng)} for _ in range(2))
        assert merged(before, merge_diff(before, after)) == after


def test_pointer_escapes() -> None:
    assert pointer("metadata", "annotations", "a/b~c", 0) == "/metadata/annotations/a~1b~0c/0"


def test_contains_allows_more_but_not_other() -> None:
    whole = {"a": 1, "b": {"c": [1, {"d": 2, "e": 3}], "x": None}}
    assert contains(whole, {"b": {"c": [1, {"d": 2}]}})
    assert contains(whole, {})
    assert not contains(whole, {"b": {"c": [2]}})
    assert not contains(whole, {"b": {"c": [1, {"d": 2}, 3]}})
    assert not contains(whole, {"missing": None})


def test_merge_patch_without_a_difference_is_empty_even_with_lock() -> None:
    obj = ConfigMap(metadata=ObjectMeta(name="a", resource_version="1"))
    assert MergePatch.between(obj, obj, lock=True).is_empty


@pytest.mark.conformance("client-01")
@pytest.mark.parametrize("body", [b"", b"null", b"[1]", b"<html>bad gateway</html>", b"\xff\xfe", b'{"details": null}'])
def test_client_01_an_error_without_a_status_object_is_still_typed(body: bytes) -> None:
    error = failure(502, {}, body, "GET /x")
    assert isinstance(error, ServerError)
    assert error.code == 502
    assert str(error).startswith("GET /x: ")


def test_an_unknown_api_is_distinguished_from_an_absent_object() -> None:
    unknown_group = failure(404, {}, b"404 page not found\n", "GET /apis/example.com/v1/caches")
    assert str(unknown_group).endswith("404 page not found (is its CustomResourceDefinition installed?)")
    assert isinstance(unknown_group, NotFound)
    of_an_informer = refusal(404, {}, b"404 page not found\n", request="GET /apis/example.com/v1/caches?limit=500")
    assert str(of_an_informer).endswith("404 page not found (is its CustomResourceDefinition installed?)")
    body = b'{"kind": "Status", "reason": "NotFound", "message": "the server could not find the requested resource"}'
    assert "CustomResourceDefinition installed?" in str(failure(404, {}, body, ""))
    body = b'{"kind": "Status", "reason": "NotFound", "message": "caches.example.com \\"a\\" not found"}'
    assert str(failure(404, {}, body, "")) == 'caches.example.com "a" not found'


def test_retry_after_comes_from_the_header_or_the_details() -> None:
    assert failure(429, {"retry-after": "3"}, b"{}", "").retry_after == 3
    body = b'{"reason": "TooManyRequests", "details": {"retryAfterSeconds": 4}}'
    error = failure(429, {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, body, "")
    assert isinstance(error, TooManyRequests)
    assert error.retry_after == 4


async def test_headers_contain_user_agent_and_content_type() -> None:
    transport = Scripted(Reply(200, {}, CONFIG))
    client = Client(transport, field_manager="me", user_agent="my-operator/1.2 (linux/amd64)")
    obj = await client.get(ConfigMap, "a", "default")
    await client.patch(obj, MergePatch({"data": None}))
    await client.apply(obj)
    (_, target, get, _), (_, _, patch, body), (_, apply_target, apply, apply_body) = transport.queried
    assert target == "/api/v1/namespaces/default/configmaps/a"
    assert get == {"accept": "application/json", "user-agent": "my-operator/1.2 (linux/amd64)"}
    assert patch["content-type"] == "application/merge-patch+json"
    assert body == b'{"data":null}'
    assert apply["content-type"] == "application/apply-patch+yaml"
    assert apply_target.endswith("a?fieldManager=me&fieldValidation=Warn&force=true")
    assert b"apiVersion" in (apply_body or b"")


def test_user_agent_has_the_form_of_client_go() -> None:
    binary, _, rest = user_agent("workspace-controller", "1.0").partition("/")
    assert binary == "workspace-controller"
    assert rest.startswith("1.0 (")
    assert rest.endswith(")")
    assert "/" in rest


async def test_each_warning_of_the_server_is_logged_once() -> None:
    header = '299 - "v1 is \\"old\\"", 299 - "unknown field \\"x\\"", 199 - "not for us"'
    client = Client(Scripted(Reply(200, {"warning": header}, CONFIG)), field_manager="me")
    with structlog.testing.capture_logs() as logged:
        await client.get(ConfigMap, "a", "default")
        await client.get(ConfigMap, "a", "default")
    assert [line["warning"] for line in logged] == ['v1 is "old"', 'unknown field "x"']


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"metadata": {"continue": 3}}'])
async def test_a_response_that_is_not_a_list_is_an_error(body: bytes) -> None:
    client = Client(Scripted(Reply(200, {}, body)), field_manager="me")
    with pytest.raises(UnreadableObject, match="GET /api/v1/configmaps"):
        await client.list(ConfigMap)


async def test_a_list_without_items_is_empty() -> None:
    client = Client(
        Scripted(Reply(200, {}, b'{"metadata": {"resourceVersion": "9"}, "items": null}')), field_manager="me"
    )
    found = await client.list(ConfigMap)
    assert list(found) == []
    assert found.resource_version == "9"


class Spans:
    """A tracer that records its spans, and their only span."""

    annotation = ""
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    def __init__(self) -> None:
        self.lines: list[str] = []

    def record_span(
        self,
        name: str,
        *,
        start: datetime,
        end: datetime,
        parent: str,
        attributes: Mapping[str, Attribute] | None = None,
    ) -> None:
        raise AssertionError

    @contextmanager
    def start_as_current_span(
        self,
        name: str,
        *,
        attributes: Mapping[str, Attribute] | None = None,
        kind: SpanKind = "internal",
        parent: str = "",
        link: str = "",
    ) -> Generator["Spans"]:
        assert kind == "client"
        self.lines.append(f"{name} {dict(attributes or {})}")
        yield self

    def set_attribute(self, key: str, value: Attribute) -> None:
        self.lines.append(f"{key}={value}")

    def record_exception(self, exception: BaseException) -> None:
        self.lines.append(str(exception))


async def test_every_call_is_a_span_without_its_query() -> None:
    spans = Spans()
    transport = Scripted(Reply(200, {}, CONFIG))
    client = Client(transport, field_manager="me", tracer=spans)
    await client.apply(await client.get(ConfigMap, "a", "default"))
    path = "/api/v1/namespaces/default/configmaps/a"
    common = {"url.path": path, "server.address": "example:443"}
    assert spans.lines == [
        f"GET {path} { ({'http.request.method': 'GET'} | common) }",
        "http.response.status_code=200",
        f"PATCH {path} { ({'http.request.method': 'PATCH'} | common) }",
        "http.response.status_code=200",
    ]
    assert [headers["traceparent"] for _, _, headers, _ in transport.queried] == [Spans.traceparent] * 2
