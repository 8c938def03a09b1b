"""Structs of `kaito.runtime.kinds` inside custom kinds keep every field.

The API server pruned what the models do not name, without an error. A later release adds fields.
"""

import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from kaito.runtime import kinds
from kaito.runtime.crd import Version, crd
from kaito.runtime.crd.schema import PRESERVE, is_built_in
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.kinds import (
    EnvVar,
    JobTemplateSpec,
    PersistentVolumeClaim,
    PersistentVolumeClaimTemplate,
    PodTemplateSpec,
    untyped_kind,
)
from kaito.runtime.meta import LabelSelector, Model, ObjectMeta, Resource
from kaito.runtime.testing import World

STRUCTS = sorted(
    name
    for name in dir(kinds)
    if isinstance(model := getattr(kinds, name), type) and issubclass(model, Model) and is_built_in(model)
)

TEMPLATE = Path(__file__).parents[3] / "contract" / "manifests" / "pod-template.yaml"
POD: dict[str, Any] = yaml.safe_load(TEMPLATE.read_text(encoding="utf-8"))
CLAIM: dict[str, Any] = {
    "metadata": {"labels": {"a": "b"}},
    "spec": {
        "accessModes": ["ReadWriteOnce"],
        "dataSourceRef": {"kind": "VolumeSnapshot", "name": "s", "apiGroup": "snapshot.storage.k8s.io"},
        "volumeAttributesClassName": "fast",
        "resources": {"requests": {"storage": "1Gi"}},
    },
}
JOB: dict[str, Any] = {
    "metadata": {"labels": {"a": "b"}},
    "spec": {
        "template": POD,
        "backoffLimitPerIndex": 1,
        "maxFailedIndexes": 3,
        "successPolicy": {"rules": [{"succeededIndexes": "0", "succeededCount": 1}]},
        "podReplacementPolicy": "Failed",
        "managedBy": "example.com/queue",
    },
}


class Variable(EnvVar):
    """A built-in struct with an additional field."""

    comment: str = ""


class Inner(Model):
    """A custom struct around built-in ones."""

    pods: dict[str, PodTemplateSpec] = {}
    jobs: list[JobTemplateSpec] = []


class AppSpec(Model):
    template: PodTemplateSpec | None = None
    job: JobTemplateSpec | None = None
    claims: list[PersistentVolumeClaim] = []
    ephemeral: PersistentVolumeClaimTemplate | None = None
    env: list[Variable] = []
    inner: Inner | None = None
    selector: LabelSelector | None = None


class App(Resource, api="example.com/v1", kind="App"):
    spec: AppSpec = AppSpec()


@pytest.mark.parametrize(
    "spec",
    [
        {"template": POD},
        {"job": JOB},
        {"claims": [{"apiVersion": "v1", "kind": "PersistentVolumeClaim", **CLAIM}]},
        {"ephemeral": CLAIM},
        {"env": [{"name": "a", "comment": "c", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}]},
        {"inner": {"pods": {"a": POD}, "jobs": [JOB]}},
    ],
    ids=lambda spec: next(iter(spec)),
)
def test_every_field_of_an_embedded_struct_is_stored(spec: Mapping[str, Any], world: World) -> None:
    sent = App.model_validate({"metadata": {"name": "a"}, "spec": spec})
    assert world.put(sent).to_dict()["spec"] == spec


def test_fields_of_own_structs_are_pruned_as_before(world: World) -> None:
    sent = App.model_validate({"metadata": {"name": "a"}, "spec": {"typo": 1, "inner": {"typo": 1, "jobs": [JOB]}}})
    assert world.put(sent).to_dict()["spec"] == {"inner": {"jobs": [JOB]}}


@pytest.mark.sample(40)
@pytest.mark.parametrize("name", STRUCTS)
def test_every_built_in_struct_keeps_what_its_model_does_not_name(name: str) -> None:
    model = getattr(kinds, name)
    body = {"__annotations__": {"spec": model}, "__module__": __name__}
    holder = types.new_class("Holder", (Resource,), _HOLDER, lambda namespace: namespace.update(body))
    schema = crd([Version(model=holder, storage=True)])["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    pruning = [path for path, part in objects(schema["properties"]["spec"], "spec") if not part.get(PRESERVE)]
    complete = {f"{path}" for path in pruning if path.rpartition(".")[2].rstrip("[]") in COMPLETE}
    assert set(pruning) == complete


_HOLDER: dict[str, Any] = {"api": "example.com/v1", "kind": "Holder"}

COMPLETE = {
    *("selector", "labelSelector", "podSelector", "namespaceSelector", "objectSelector", "matchExpressions"),
    *("ownerReferences", "conditions", "clusterRoleSelectors", "requirements"),
}
"""Where a struct of `metav1` stands, whose model names every field."""


def objects(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every part of a schema that has properties, with its path."""
    if "properties" in schema:
        yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from objects(part, f"{path}.{name}")
    for part in (schema.get("items"), schema.get("additionalProperties")):
        if isinstance(part, dict):
            yield from objects(cast("dict[str, Any]", part), f"{path}[]")


def test_an_untyped_kind_keeps_everything(world: World) -> None:
    thing = untyped_kind("example.com/v1", "Thing", plural="things")
    sent = thing.model_validate({"metadata": {"name": "a"}, "spec": {"deep": [{"er": 1}]}, "status": {"x": 1}})
    world.put(sent)
    stored = world.get(thing, "a").to_dict()
    assert stored["spec"] == {"deep": [{"er": 1}]}


def test_a_resource_inside_another_keeps_its_type(world: World) -> None:
    class Child(Resource, api="example.com/v1", kind="Child"):
        """A custom kind."""

        spec: dict[str, int] = {}

    class Parent(Resource, api="example.com/v1", kind="Parent"):
        children: list[Child] = []

    child = {"apiVersion": "example.com/v1", "kind": "Child", "metadata": {"name": "c"}, "spec": {"a": 1}}
    sent = Parent.model_validate({"metadata": {"name": "a"}, "children": [child]})
    assert world.put(sent).to_dict()["children"] == [child]
    assert ObjectMeta(name="c") == sent.children[0].metadata


def test_an_untyped_kind_without_plural_is_rejected_with_the_remedy(world: World) -> None:
    thing = untyped_kind("example.com/v1", "Thing")
    with pytest.raises(ConfigurationError, match=r"Thing has no plural: write untyped_kind\('example.com/v1'"):
        world.put(thing.model_validate({"metadata": {"name": "a"}}))
