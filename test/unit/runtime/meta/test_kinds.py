"""Models of kinds lose nothing, invent nothing, and spell fields as the API does."""

import ast
from pathlib import Path
from typing import Any

import pytest

from kaito.runtime import kinds
from kaito.runtime.kinds import (
    ConfigMap,
    CustomResourceDefinition,
    Deployment,
    Node,
    Pod,
    PriorityClass,
    Secret,
    structs,
)
from kaito.runtime.meta import Model, ObjectMeta, Resource, wire_name

EVERYTHING = [getattr(kinds, name) for name in dir(kinds)]
KINDS = [kind for kind in EVERYTHING if isinstance(kind, type) and issubclass(kind, Resource) and kind.kind]


def test_a_star_imports_every_kind() -> None:
    namespace: dict[str, object] = {}
    exec("from kaito.runtime.kinds import *", namespace)
    assert set(dir(kinds)) <= namespace.keys()


def test_what_type_checkers_see_of_the_kinds_is_what_there_is() -> None:
    received = {
        (str(line.module).rpartition(".")[2], alias.name)
        for package in (kinds, structs)
        for block in ast.parse(Path(str(package.__file__)).read_text()).body
        if isinstance(block, ast.If)
        for line in block.body
        if isinstance(line, ast.ImportFrom)
        for alias in line.names
    }
    assert received - {("structs", "*")} == {
        (kind.__module__.rpartition(".")[2], name)
        for name, kind in zip(dir(kinds), EVERYTHING, strict=True)
        if isinstance(kind, type) or name == "untyped_kind"
    }


@pytest.mark.parametrize(
    ("name", "wire"),
    [
        ("pod_ip", "podIP"),
        ("cluster_ips", "clusterIPs"),
        ("provider_id", "providerID"),
        ("system_uuid", "systemUUID"),
        ("pod_cidr", "podCIDR"),
        ("host_pid", "hostPID"),
        ("uid", "uid"),
        ("ip", "ip"),
        ("url", "url"),
        ("api_version", "apiVersion"),
        ("from_", "from"),
        ("default_v1_thing", "defaultV1Thing"),
    ],
)
def test_wire_names_follow_the_api_conventions(name: str, wire: str) -> None:
    assert wire_name(name) == wire


def sample(kind: type[Resource]) -> Resource:
    manifest: dict[str, Any] = {"metadata": {"name": "x"}}
    if kind is CustomResourceDefinition:
        manifest["spec"] = {"group": "g.io", "names": {"plural": "xs", "kind": "X"}, "scope": "Cluster"}
    if kind is PriorityClass:
        manifest["value"] = 1
    return kind.model_validate(manifest)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_defaults_do_not_leak_into_manifests(kind: type[Resource]) -> None:
    document = sample(kind).to_dict()
    document = {name: value for name, value in document.items() if name not in {"spec", "value"}}
    assert document == {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": "x"}}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_unknown_fields_survive(kind: type[Resource]) -> None:
    manifest: dict[str, Any] = sample(kind).to_dict() | {"somethingNew": {"deep": [1, None, {"x": True}]}}
    manifest["metadata"]["managedFields"] = [{"manager": "m"}]
    read = kind.model_validate(manifest)
    assert read.to_dict() == manifest
    assert read.with_metadata(labels={"a": "b"}).to_dict()["somethingNew"] == manifest["somethingNew"]


def test_reading_structs_needs_no_none_checks() -> None:
    pod = Pod()
    assert (pod.status.phase, pod.status.container_statuses, pod.spec.node_name) == ("", [], None)
    assert Deployment().status.ready_replicas == 0
    assert Node().spec.taints == []


def test_readiness() -> None:
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    assert Pod.model_validate({"status": ready}).is_ready
    assert Node.model_validate({"status": ready}).is_ready
    assert not Pod().is_ready
    leaving = {"metadata": {"deletionTimestamp": "2030-01-01T00:00:00Z"}, "status": ready}
    assert not Pod.model_validate(leaving).is_ready


def test_secrets_are_decoded_and_never_printed() -> None:
    secret = Secret(metadata=ObjectMeta(name="s")).with_value("tls.key", b"hunter2")
    assert secret.value("tls.key") == b"hunter2"
    assert secret.value("none") is None
    assert "hunter2" not in f"{secret} {secret!r}"
    assert secret.data["tls.key"] not in f"{secret} {secret!r}"
    assert secret.with_values(a=b"1").value("a") == b"1"
    with pytest.raises(ValueError, match="data") as misfit:
        Secret.model_validate({"data": {"password": ["hunter2"]}})
    assert "hunter2" not in str(misfit.value)


def test_identity_comes_from_the_class() -> None:
    class Gadget(Resource, api="x.io/v2", kind="Gadget"):
        pass

    class OldGadget(Gadget, api="x.io/v1"):
        pass

    assert (Gadget.plural, Gadget.group(), Gadget.namespaced) == ("gadgets", "x.io", True)
    assert (OldGadget.api_version, OldGadget.kind, OldGadget.plural) == ("x.io/v1", "Gadget", "gadgets")
    assert str(OldGadget.gvk()) == "Gadget.v1.x.io"


def test_objects_are_frozen_and_copies_validated() -> None:
    config = ConfigMap(metadata=ObjectMeta(name="a"), data={"k": "v"})
    with pytest.raises(ValueError, match="frozen"):
        config.data = {}  # type: ignore[misc]  # what is tested
    with pytest.raises(ValueError, match="valid string"):
        config.evolve(data={"k": 1})


def test_null_is_absent() -> None:
    class Thing(Model):
        size: int | None = None

    assert Thing(size=None).to_dict() == {}
