"""Conversion between versions through a hub."""

import json
from typing import Any

import pytest

from kaito.runtime.errors import ConfigurationError
from kaito.runtime.meta import Model, Resource
from kaito.runtime.webhook import Conversion, ConversionError, Spoke
from kaito.runtime.webhook.conversion import convert_review


class NewSpec(Model):
    replicas: int = 1


class New(Resource, api="test.example.com/v1", kind="Gadget"):
    spec: NewSpec = NewSpec()


class OldSpec(Model):
    size: int = 1


class Old(Resource, api="test.example.com/v1beta1", kind="Gadget"):
    spec: OldSpec = OldSpec()


class Older(Resource, api="test.example.com/v1alpha1", kind="Gadget"):
    size: str = "1"


class Stranger(Resource, api="test.example.com/v1", kind="Widget"):
    """Another kind."""


def from_old(old: Old) -> New:
    return New(metadata=old.metadata, spec=NewSpec(replicas=old.spec.size))


def to_old(new: New) -> Old:
    return Old(metadata=new.metadata, spec=OldSpec(size=new.spec.replicas))


def from_older(older: Older) -> New:
    metadata = older.metadata.evolve(name="renamed", annotations={"from": "alpha"})
    return New(metadata=metadata, spec=NewSpec(replicas=int(older.size)))


def to_older(new: New) -> Older:
    return Older(metadata=new.metadata, size=str(new.spec.replicas))


CONVERSION = Conversion(
    New, Spoke(Old, to_hub=from_old, from_hub=to_old), Spoke(Older, to_hub=from_older, from_hub=to_older)
)


def ask(wanted: str, *objects: dict[str, Any]) -> dict[str, Any]:
    request = {"uid": "u-1", "desiredAPIVersion": wanted, "objects": list(objects)}
    document = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "request": request}
    answer = convert_review({CONVERSION.group_kind: CONVERSION}, json.dumps(document).encode())
    response: dict[str, Any] = answer["response"]
    return response


def document(version: str, **fields: Any) -> dict[str, Any]:
    metadata = {"name": "g", "uid": "x", "managedFields": [{"manager": "kubectl"}]}
    return {"apiVersion": f"test.example.com/{version}", "kind": "Gadget", "metadata": metadata, **fields}


def test_every_version_reaches_every_other() -> None:
    response = ask("test.example.com/v1", document("v1beta1", spec={"size": 3}), document("v1alpha1", size="4"))
    assert response["result"] == {"status": "Success"}
    assert [each["spec"] for each in response["convertedObjects"]] == [{"replicas": 3}, {"replicas": 4}]
    assert {each["apiVersion"] for each in response["convertedObjects"]} == {"test.example.com/v1"}
    response = ask("test.example.com/v1alpha1", document("v1beta1", spec={"size": 3}))
    assert response["convertedObjects"][0]["size"] == "3"


def test_of_the_metadata_only_labels_and_annotations_may_differ() -> None:
    response = ask("test.example.com/v1", document("v1alpha1", size="4"))
    metadata = document("v1")["metadata"] | {"annotations": {"from": "alpha"}}
    assert response["convertedObjects"][0]["metadata"] == metadata


def test_the_first_failure_fails_the_batch_and_names_the_object() -> None:
    response = ask("test.example.com/v1", document("v1beta1", spec={"size": 3}), document("v1alpha1", size="four"))
    assert response["convertedObjects"] == []
    assert response["result"]["status"] == "Failure"
    assert "Gadget g from test.example.com/v1alpha1" in response["result"]["message"]
    assert "four" in response["result"]["message"]


@pytest.mark.parametrize(
    ("wanted", "given"), [("test.example.com/v1", "v1"), ("test.example.com/v9", "v1"), ("other.dev/v1", "v1")]
)
def test_what_cannot_be_converted_is_reported(wanted: str, given: str) -> None:
    response = ask(wanted, document(given))
    assert response["result"]["status"] == "Failure"
    assert response["uid"] == "u-1"


@pytest.mark.parametrize("body", [b"nonsense", b'{"request": {"uid": "\xff"}}', b'{"request": ' + b"[" * 100_000])
def test_a_body_that_is_no_review_gets_an_answer(body: bytes) -> None:
    answer = convert_review({}, body)
    assert answer["kind"] == "ConversionReview"
    assert answer["response"]["result"]["status"] == "Failure"


def test_wrong_declarations_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="not versions of one kind"):
        Conversion(New, Spoke(Stranger, to_hub=from_old, from_hub=to_old))
    with pytest.raises(ConfigurationError, match="given twice"):
        Conversion(New, Spoke(Old, from_old, to_old), Spoke(Old, from_old, to_old))
    with pytest.raises(ConversionError):
        CONVERSION.convert(document("v1"), "test.example.com/v1")
