"""Admission answers: patches, refusals, warnings, and what becomes of broken questions."""

import asyncio
import base64
import json
from typing import Any

import pytest

from kaito.runtime.errors import ConfigurationError, Invalid
from kaito.runtime.meta import Model, Resource
from kaito.runtime.webhook import Admission, Webhook
from kaito.runtime.webhook.admission import defaulting_handler, validating_handler
from kaito.runtime.webhook.patching import json_patch
from kaito.runtime.webhook.review import AdmissionResponse, AdmissionReview, BadReview, parse_review


class GadgetSpec(Model):
    size: int | None = None
    color: str | None = None
    tags: list[str] = []


class Gadget(Resource, api="test.example.com/v1", kind="Gadget"):
    spec: GadgetSpec = GadgetSpec()


def gadget(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "test.example.com/v1", "kind": "Gadget", "metadata": {"name": "g"}, "spec": spec}


def review(operation: str = "CREATE", **request: Any) -> AdmissionReview:
    return AdmissionReview("v1", "u-1", {"uid": "u-1", "operation": operation, "name": "g", **request})


def applied(document: Any, response: AdmissionResponse) -> Any:
    """The document after the response's patch, applied by a few lines that know only what `json_patch` emits."""
    result = json.loads(json.dumps(document))
    for operation in response.patch:
        *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        place = result
        for parent in parents:
            place = place[parent]
        if operation["op"] == "remove":
            del place[last]
        else:
            place[last] = operation["value"]
    return result


def fill_in(obj: Gadget) -> Gadget:
    return obj if obj.spec.size is not None else obj.evolve(spec=obj.spec.evolve(size=3))


async def paint(obj: Gadget) -> Gadget:
    await asyncio.sleep(0)
    color = "red" if obj.spec.size == 3 else "gray"
    return obj if obj.spec.color else obj.evolve(spec=obj.spec.evolve(color=color))


@pytest.mark.conformance(50)
async def test_a_patch_touches_only_what_changed_and_unknown_fields_survive() -> None:
    document = gadget(color=None, unknownNumber=7, nested={"deep": [1, {"x": None}]})
    document["metadata"] |= {"annotations": {"a/b~c": "1"}, "creationTimestamp": None}
    document["futureField"] = {"k": "v"}
    response = await defaulting_handler(Webhook(Gadget, default=fill_in))(review(object=document))
    assert response.patch == [{"op": "add", "path": "/spec/size", "value": 3}]
    assert applied(document, response) == document | {"spec": document["spec"] | {"size": 3}}


@pytest.mark.conformance(50)
async def test_nothing_to_default_is_no_patch() -> None:
    response = await defaulting_handler(Webhook(Gadget, default=fill_in))(review(object=gadget(size=1)))
    assert (response.allowed, list(response.patch)) == (True, [])


@pytest.mark.conformance(50)
async def test_several_functions_see_each_others_work() -> None:
    response = await defaulting_handler(Webhook(Gadget, default=[fill_in, paint]))(review(object=gadget()))
    assert applied(gadget(), response)["spec"] == {"size": 3, "color": "red"}


@pytest.mark.conformance(50)
async def test_a_missing_spec_is_added_whole_and_a_null_is_replaced() -> None:
    document = {"apiVersion": "test.example.com/v1", "kind": "Gadget", "metadata": {"name": "g"}}
    response = await defaulting_handler(Webhook(Gadget, default=fill_in))(review(object=document))
    assert applied(document, response)["spec"] == {"size": 3}
    nulled = gadget(size=None)
    response = await defaulting_handler(Webhook(Gadget, default=fill_in))(review(object=nulled))
    assert applied(nulled, response)["spec"] == {"size": 3}


def test_patches_escape_names_and_replace_lists_whole() -> None:
    before = {"a": {"x/y": 1, "gone": True}, "list": [1, 2]}
    after = {"a": {"x/y": 2}, "list": [1], "new": {}}
    assert json_patch(before, after) == [
        {"op": "remove", "path": "/a/gone"},
        {"op": "add", "path": "/a/x~1y", "value": 2},
        {"op": "add", "path": "/list", "value": [1]},
        {"op": "add", "path": "/new", "value": {}},
    ]


async def test_deletions_are_never_defaulted() -> None:
    response = await defaulting_handler(Webhook(Gadget, default=fill_in))(review("DELETE", oldObject=gadget()))
    assert response.allowed


def validate(admission: Admission[Gadget]) -> None:
    if admission.operation == "DELETE":
        assert admission.object is None
        assert admission.old is not None
        if admission.old.spec.color == "gold":
            admission.deny("", "gold is not thrown away")
        return
    assert admission.object is not None
    if (admission.object.spec.size or 0) > 100:
        admission.deny("spec.size", "at most 100; split the gadget instead")
    if admission.old is not None and admission.old.spec.color != admission.object.spec.color:
        admission.deny("spec.color", "cannot change")
    if admission.object.spec.color == "gray":
        admission.warn("gray is going out of fashion " + "x" * 300)


async def test_refusals_name_every_field() -> None:
    ask = validating_handler(Webhook(Gadget, validate=validate))
    response = await ask(review("UPDATE", object=gadget(size=101, color="red"), oldObject=gadget(color="blue")))
    assert (response.allowed, response.code) == (False, 422)
    assert response.message == (
        'Gadget "g" is invalid: spec.size: at most 100; split the gadget instead; spec.color: cannot change'
    )
    assert [cause["field"] for cause in response.causes] == ["spec.size", "spec.color"]


async def test_refusals_without_a_field_are_forbidden_and_deletions_see_the_old_state() -> None:
    ask = validating_handler(Webhook(Gadget, validate=validate))
    response = await ask(review("DELETE", oldObject=gadget(color="gold")))
    assert (response.allowed, response.code, response.message) == (False, 403, "gold is not thrown away")
    assert (await ask(review("DELETE", oldObject=gadget()))).allowed


async def test_warnings_are_told_and_cut() -> None:
    response = await validating_handler(Webhook(Gadget, validate=validate))(review(object=gadget(color="gray")))
    assert response.allowed
    assert len(response.warnings[0]) == 256


async def test_too_many_warnings_end_with_how_many_are_missing() -> None:
    def check(admission: Admission[Gadget]) -> None:
        for number in range(30):
            admission.warn(f"{number:02}" + "x" * 200)

    response = await validating_handler(Webhook(Gadget, validate=check))(review(object=gadget(size=1)))
    answered = json.loads(response.encode("v1", "u"))["response"]["warnings"]
    assert answered[-1] == "… and 10 more warnings"
    assert sum(map(len, answered)) <= 4096 + len(answered[-1])


async def test_api_errors_keep_their_code() -> None:
    async def refuse(_: Admission[Gadget]) -> None:
        raise Invalid("no", code=422, reason="Invalid", details={"causes": [{"field": "spec"}]})

    response = await validating_handler(Webhook(Gadget, validate=refuse))(review(object=gadget()))
    document = json.loads(response.encode("v1", "u-1"))
    assert document["response"]["status"]["code"] == 422
    assert document["response"]["status"]["details"] == {"causes": [{"field": "spec"}]}


async def test_connects_pass_and_unknown_operations_do_not() -> None:
    ask = validating_handler(Webhook(Gadget, validate=validate))
    assert (await ask(review("CONNECT"))).allowed
    assert (await ask(review("PURGE"))).code == 400


async def test_an_object_that_does_not_fit_is_refused_with_the_field() -> None:
    response = await validating_handler(Webhook(Gadget, validate=validate))(review(object=gadget(size="many")))
    assert (response.allowed, response.code) == (False, 400)
    assert "size" in response.message


def body(version: str = "v1", **request: Any) -> bytes:
    return json.dumps(
        {"apiVersion": f"admission.k8s.io/{version}", "kind": "AdmissionReview", "request": {"uid": "u-1"} | request}
    ).encode()


@pytest.mark.conformance(52)
@pytest.mark.parametrize("version", ["v1", "v1beta1"])
async def test_answers_come_in_the_version_of_the_question(version: str) -> None:
    question = parse_review(body(version, operation="CREATE", object=gadget()))
    response = await defaulting_handler(Webhook(Gadget, default=fill_in))(question)
    answer = json.loads(response.encode(question.version, question.uid))
    assert (answer["apiVersion"], answer["kind"]) == (f"admission.k8s.io/{version}", "AdmissionReview")
    assert answer["response"]["uid"] == "u-1"
    assert answer["response"]["patchType"] == "JSONPatch"
    assert json.loads(base64.b64decode(answer["response"]["patch"])) == list(response.patch)


@pytest.mark.conformance(51)
@pytest.mark.parametrize(
    ("content", "version", "uid"),
    [
        (b"", "v1", ""),
        (b"<html>", "v1", ""),
        (b'{"request": {"uid": "abc", "object": {', "v1", "abc"),
        (b"[]", "v1", ""),
        (b'{"request": {"uid": "abc", "object": ' + b"[" * 100_000, "v1", "abc"),
        (b'{"apiVersion": "v1", "kind": "Pod"}', "v1", ""),
        (b'{"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview"}', "v1beta1", ""),
        (b'{"apiVersion": "admission.k8s.io/v9", "kind": "AdmissionReview", "request": {"uid": "u"}}', "v1", "u"),
    ],
)
def test_what_is_no_review_still_gets_the_parts_of_an_answer(content: bytes, version: str, uid: str) -> None:
    with pytest.raises(BadReview) as caught:
        parse_review(content)
    assert (caught.value.version, caught.value.uid, caught.value.code) == (version, uid, 400)


def test_paths_follow_the_convention_and_wrong_ones_are_refused() -> None:
    webhook = Webhook(Gadget, default=fill_in, validate=validate)
    assert webhook.mutate_path == "/mutate-test-example-com-v1-gadget"
    assert webhook.validate_path == "/validate-test-example-com-v1-gadget"
    with pytest.raises(ConfigurationError, match="webhook path"):
        Webhook(Gadget, validate=validate, validate_path="no slash")
    with pytest.raises(ConfigurationError, match="domain/name"):
        Webhook(Gadget, finalizer="no-domain")
    with pytest.raises(ConfigurationError, match="nothing to do"):
        Webhook(Gadget)


FINALIZER = "test.example.com/cleanup"


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, [FINALIZER]),
        ({"finalizers": None}, [FINALIZER]),
        ({"finalizers": []}, [FINALIZER]),
        ({"finalizers": ["other.dev/a"]}, ["other.dev/a", FINALIZER]),
        ({"finalizers": [FINALIZER, "other.dev/a"]}, [FINALIZER, "other.dev/a"]),
    ],
)
@pytest.mark.parametrize("with_default", [False, True])
async def test_a_created_object_gets_the_finalizer_once(
    metadata: dict[str, Any], expected: list[str], *, with_default: bool
) -> None:
    webhook = Webhook(Gadget, default=fill_in if with_default else (), finalizer=FINALIZER)
    document = gadget(unknown=1)
    document["metadata"] |= metadata
    response = await defaulting_handler(webhook)(review(object=document))
    result = with_appended(document, response)
    assert result["metadata"]["finalizers"] == expected
    assert result["spec"] == {"unknown": 1} | ({"size": 3} if with_default else {})


def with_appended(document: Any, response: AdmissionResponse) -> Any:
    """The document after a patch that may append one finalizer."""
    appended = [operation["value"] for operation in response.patch if operation["path"] == "/metadata/finalizers/-"]
    rest = [operation for operation in response.patch if operation["path"] != "/metadata/finalizers/-"]
    result = applied(document, AdmissionResponse(allowed=True, patch=rest))
    for name in appended:
        result["metadata"]["finalizers"].append(name)
    return result


@pytest.mark.parametrize("operation", ["UPDATE", "DELETE", "CONNECT"])
async def test_only_creations_get_the_finalizer(operation: str) -> None:
    """An update may remove the last finalizer of an object that is being deleted."""
    response = await defaulting_handler(Webhook(Gadget, finalizer=FINALIZER))(review(operation, object=gadget()))
    assert (response.allowed, list(response.patch)) == (True, [])


@pytest.mark.parametrize("document", [None, [], {}, {"metadata": "x"}, {"metadata": {"name": "g"}, "spec": "wrong"}])
async def test_an_object_that_does_not_fit_the_model_is_not_denied_for_a_finalizer(document: Any) -> None:
    response = await defaulting_handler(Webhook(Gadget, finalizer=FINALIZER))(review(object=document))
    assert response.allowed
    has_metadata = document == {"metadata": {"name": "g"}, "spec": "wrong"}
    assert bool(response.patch) == has_metadata
