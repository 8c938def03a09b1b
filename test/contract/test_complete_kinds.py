"""Models of built-in kinds have every field that a real kube-apiserver serves, and read and write what it stores."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.kubernetes.kinds import OMITTED
from kaito.runtime import kinds
from kaito.runtime.meta import Resource
from kaito.runtime.meta.model import without_nulls
from test.contract.conftest import Server
from test.support.unknown_fields import unknown_fields

MANIFESTS = Path(__file__).parent / "manifests"
REF = "#/components/schemas/"
KINDS: list[type[Resource]] = [
    kind
    for name in sorted(kinds.__all__)
    if isinstance(kind := getattr(kinds, name), type) and issubclass(kind, Resource) and kind.kind
]


def group_path(kind: type[Resource]) -> str:
    return f"apis/{kind.api_version}" if "/" in kind.api_version else f"api/{kind.api_version}"


def with_every_field(schema: Mapping[str, Any], schemas: Mapping[str, Any], inside: tuple[str, ...] = ()) -> Any:
    """An object with every field of a served schema, once for each recursive definition."""
    if "allOf" in schema or "$ref" in schema:
        name = str((schema.get("allOf") or [schema])[0]["$ref"]).removeprefix(REF)
        if name in inside:
            return {}
        short = name.rpartition(".")[2]
        samples = {"Time": "2026-01-02T03:04:05Z", "MicroTime": "2026-01-02T03:04:05.000006Z", "Quantity": "1500m"}
        return (samples | {"IntOrString": "25%"}).get(short) or with_every_field(
            schemas[name], schemas, (*inside, name)
        )
    match schema.get("type"):
        case "string":
            return "text"
        case "integer":
            return 7
        case "boolean":
            return False
        case "array":
            return [with_every_field(schema["items"], schemas, inside)]
        case "object":
            values = schema.get("additionalProperties")
            made = {key: with_every_field(part, schemas, inside) for key, part in schema.get("properties", {}).items()}
            return made | ({"key": with_every_field(values, schemas, inside)} if values else {})
        case _:
            return {"any": 1}


@pytest.mark.real
async def test_every_field_that_the_server_serves_is_declared(real: Server) -> None:
    missing: list[str] = []
    seen: set[str] = set()
    for kind in KINDS:
        document = await real.ok("GET", f"/openapi/v3/{group_path(kind)}")
        schemas = document["components"]["schemas"]
        group, _, version = kind.api_version.rpartition("/")
        wanted = {"group": group, "version": version, "kind": kind.kind}
        schema = next(each for each in schemas.values() if wanted in each.get("x-kubernetes-group-version-kind", ()))
        sent = with_every_field(schema, schemas) | {"apiVersion": kind.api_version, "kind": kind.kind}
        read = kind.model_validate(sent)
        missing += unknown_fields(read, kind.kind, omitted=OMITTED)
        assert read.to_dict() == sent
        seen.add(kind.kind)
    assert missing == []
    assert seen >= {"Pod", "Deployment", "StatefulSet", "Job", "CronJob", "Service", "Ingress", "ReplicaSet"}


async def test_every_stored_object_is_written_as_it_was_read(server: Server) -> None:
    for path, body in yaml.safe_load((MANIFESTS / "rare-fields.yaml").read_text(encoding="utf-8")).items():
        await server.ok("POST", path, body, fieldValidation="Strict")
    read = 0
    for kind in KINDS:
        listed = await server.call("GET", f"/{group_path(kind)}/{kind.plural}")
        if listed.status in {404, 405}:  # reviews are created only
            assert kind.plural.endswith("reviews")
            continue
        for item in listed.body["items"]:
            sent = {"apiVersion": kind.api_version, "kind": kind.kind, **without_nulls(item)}
            found = kind.from_json(json.dumps(sent))
            assert [*unknown_fields(found, kind.kind, omitted=OMITTED)] == []
            assert found.to_dict() == sent
            read += 1
    assert read > (50 if server.name == "real" else 8)
