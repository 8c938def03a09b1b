"""The models of built-in kinds have every field of Kubernetes 1.35, and structs of rare fields are loaded on use."""

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from hack.kubernetes.kinds import OMITTED, REF, Classes, definitions
from kaito.runtime import kinds
from kaito.runtime.kinds import (
    ConfigMapEnvSource,
    Container,
    EnvFromSource,
    Pod,
    PodSpec,
    ProjectedVolumeSource,
    SecurityContext,
    ServiceAccountTokenProjection,
    Volume,
    VolumeProjection,
)
from kaito.runtime.kinds.structs.index import MODULE_OF
from kaito.runtime.meta import ObjectMeta, Resource
from test.support.unknown_fields import unknown_fields

KINDS = sorted(
    name
    for name in kinds.__all__
    if isinstance(kind := getattr(kinds, name), type) and issubclass(kind, Resource) and kind.kind
)
UNTYPED = {"schema", "subresources", "additionalPrinterColumns", "selectableFields"}
"""Fields of CustomResourceDefinitions that are JSON: operators copy them from their manifests."""


def identity(definition: Mapping[str, Any]) -> set[tuple[str, str]]:
    return {
        ("/".join(part for part in (each["group"], each["version"]) if part), each["kind"])
        for each in definition.get("x-kubernetes-group-version-kind", ())
    }


def full(schema: Mapping[str, Any], name: str = "") -> Any:
    """An object with every field of the schema."""
    if "allOf" in schema or "$ref" in schema:
        target = str((schema.get("allOf") or [schema])[0]["$ref"]).removeprefix(REF)
        short = target.rpartition(".")[2]
        samples = {"Time": "2026-01-02T03:04:05Z", "MicroTime": "2026-01-02T03:04:05.000006Z", "Quantity": "1500m"}
        samples |= {"IntOrString": "25%"}
        if short in {"RawExtension", "JSON", "JSONSchemaProps", "FieldsV1"}:
            return {"any": 1}
        return samples.get(short) or full(definitions()[target], name)
    match schema.get("type"):
        case "string":
            return f"{name}-text"
        case "integer":
            return 7
        case "boolean":
            return False
        case "array":
            return [full(schema["items"], name)]
        case "object" if "properties" in schema:
            return {key: full(each, key) for key, each in schema["properties"].items() if key not in OMITTED}
        case "object":
            values = schema.get("additionalProperties")
            return {"key": full(values, name) if values else 1}
        case _:
            return {"any": 1}


@pytest.mark.parametrize("name", KINDS)
def test_an_object_with_every_field_has_typed_fields_only_and_loses_nothing(name: str) -> None:
    kind: type[Resource] = getattr(kinds, name)
    found = [each for each in definitions().values() if (kind.api_version, kind.kind) in identity(each)]
    assert found, f"{name} has no definition"
    sent = full(found[0]) | {"apiVersion": kind.api_version, "kind": kind.kind}
    read = kind.model_validate(sent)
    assert [*unknown_fields(read, name)] == []
    assert read.to_dict() == sent
    assert kind.from_json(read.model_dump_json(by_alias=True, exclude_unset=True)).to_dict() == sent


def test_no_class_declares_a_field_that_does_not_exist() -> None:
    classes = Classes()
    classes.collect()
    wrong: list[str] = []
    for model, names in classes.of.items():
        properties = {field for name in names for field in definitions()[name].get("properties", {})}
        for name, field in model.model_fields.items():
            if (field.alias or name) not in properties:
                wrong.append(f"{model.__name__}.{name}")
    assert wrong == []
    assert UNTYPED.isdisjoint(MODULE_OF)


def test_rare_structs_are_loaded_with_the_first_object_that_has_them() -> None:
    program = """
import sys
from kaito.runtime.kinds import Deployment, Job, Node, Pod, Service, StatefulSet
for kind in (Deployment, Job, Node, Pod, Service, StatefulSet):
    kind.from_json(b'{"metadata": {"name": "a"}}')
def loaded():
    prefix = "kaito.runtime.kinds.structs."
    return sorted(name.removeprefix(prefix) for name in sys.modules if name.startswith(prefix))
print(loaded())
spec = b'{"containers": [{"name": "c", "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}}]}'
pod = Pod.from_json(b'{"spec": ' + spec + b'}')
print(loaded(), type(pod.spec.containers[0].security_context.seccomp_profile).__name__)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["['index']", "['index', 'security'] SeccompProfile"]


def test_a_deferred_struct_is_written_and_read_like_others() -> None:
    token = ServiceAccountTokenProjection(path="token", expiration_seconds=3600)
    volume = Volume(name="t", projected=ProjectedVolumeSource(sources=[VolumeProjection(service_account_token=token)]))
    pod = Pod(metadata=ObjectMeta(name="a"), spec=PodSpec(volumes=[volume]))
    sent = {
        "name": "t",
        "projected": {"sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}]},
    }
    assert pod.to_dict()["spec"]["volumes"] == [sent]
    projected = Pod.model_validate(pod.to_dict()).spec.volumes[0].projected
    assert projected == volume.projected
    changed = projected.evolve(default_mode=0o400) if projected else None
    assert Volume(name="t", projected=changed).to_dict()["projected"]["defaultMode"] == 0o400


def test_an_error_in_a_deferred_struct_has_its_path() -> None:
    security = {"seccompProfile": {"type": 3}}
    with pytest.raises(ValidationError) as caught:
        Pod.model_validate({"spec": {"containers": [{"name": "c", "securityContext": security}]}})
    places = [error["loc"] for error in caught.value.errors()]
    assert places == [("spec", "containers", 0, "securityContext", "seccompProfile", "type")]
    with pytest.raises(ValidationError):
        SecurityContext.model_validate({"seccompProfile": "RuntimeDefault"})


def test_fields_of_a_later_release_survive_in_a_deferred_struct() -> None:
    sent = {"seccompProfile": {"type": "Localhost", "localhostProfile": "a.json", "later": {"a": 1}}}
    assert SecurityContext.model_validate(sent).to_dict() == sent
    assert hash(MODULE_OF["SeccompProfile"]) == hash("security")


def test_sources_of_environment_variables_have_optional() -> None:
    container = Container(
        name="c", env_from=[EnvFromSource(config_map_ref=ConfigMapEnvSource(name="a", optional=True))]
    )
    assert container.to_dict()["envFrom"] == [{"configMapRef": {"name": "a", "optional": True}}]
