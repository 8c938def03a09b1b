"""Reads the definitions of kinds from a cluster: CustomResourceDefinitions, and the API server's OpenAPI documents.

Custom kinds come from their definitions. Other kinds (built-in ones, those of aggregated API servers) have none; they
come from `/openapi/v3` and are selected by name.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

from kaito.runtime.client import Client
from kaito.runtime.client.connect import connect
from kaito.runtime.codegen.definitions import (
    DefinitionError,
    KindDefinition,
    matches,
    read_definitions,
    with_different_names,
)

_DEFINITIONS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_GVK: Final = "x-kubernetes-group-version-kind"


async def read_cluster(
    kubeconfig: Path | None = None, context: str = "", *, kinds: Sequence[str] = (), version: str = ""
) -> list[KindDefinition]:
    """Returns the kinds of a cluster, sorted by group and kind.

    Args:
        kubeconfig: cluster and credentials; by default those that `kubectl` uses.
        context: context of the kubeconfig; by default its current one.
        kinds: the kinds to return, as `Certificate` or `Certificate.cert-manager.io`; empty for all custom kinds.
        version: the version to return; by default the one that is stored, or the preferred one of built-in kinds.

    Raises:
        KaitoRuntimeError: a request failed.
        ConfigurationError: no cluster configuration was found.
        DefinitionError: a kind or the version does not exist.
    """
    async with connect(kubeconfig, context=context, field_manager="kaito-runtime") as client:
        return await definitions_of(client, kinds=kinds, version=version)


async def definitions_of(client: Client, *, kinds: Sequence[str] = (), version: str = "") -> list[KindDefinition]:
    """Returns the kinds of the cluster of a client; see `read_cluster`."""
    listed = await _get(client, _DEFINITIONS)
    custom = {(each["spec"]["group"], each["spec"]["names"]["kind"]) for each in listed["items"]}
    of_custom = [kind for kind in kinds if any(matches(each, kind) for each in custom)]
    found: list[KindDefinition] = []
    if of_custom or not kinds:
        text = json.dumps({"kind": "CustomResourceDefinitionList", "items": listed["items"]})
        found += read_definitions([("the cluster", text)], kinds=of_custom, version=version)
    for kind in kinds:
        if kind not in of_custom:
            found.append(await _served(client, kind, version))
    return with_different_names(sorted(found, key=lambda each: (each.group, each.kind)))


async def _get(client: Client, path: str) -> dict[str, Any]:
    return await client.raw("GET", path)


async def _served(client: Client, wanted: str, version: str) -> KindDefinition:
    """Returns a kind without a CustomResourceDefinition; the groups are tried in the server's order of preference."""
    served = [("", "v1")]
    for group in (await _get(client, "/apis"))["groups"]:
        preferred: str = group["preferredVersion"]["version"]
        others = [each["version"] for each in group["versions"] if each["version"] != preferred]
        served += [(group["name"], each) for each in (preferred, *others)]
    for name, each in served:
        if version and each != version:
            continue
        path = f"apis/{name}/{each}" if name else f"api/{each}"
        for resource in (await _get(client, f"/{path}"))["resources"]:
            kind, plural = resource["kind"], resource["name"]
            # Subresources have their parent's group, or one of their own; they are not kinds of this version.
            if "/" in plural or not matches((name, kind), wanted):
                continue
            schemas = (await _get(client, f"/openapi/v3/{path}"))["components"]["schemas"]
            schema = _schema_of(schemas, name, each, kind)
            return KindDefinition(
                group=name, version=each, kind=kind, plural=plural, namespaced=resource["namespaced"], schema=schema
            )
    where = f" in version {version}" if version else ""
    raise DefinitionError(f"the cluster does not serve the kind {wanted}{where}: see `kubectl api-resources`")


def _schema_of(schemas: Mapping[str, Any], group: str, version: str, kind: str) -> Mapping[str, Any]:
    identity = {"group": group, "version": version, "kind": kind}
    for schema in schemas.values():
        if identity in schema.get(_GVK, ()):
            expanded: Mapping[str, Any] = _expanded(schema, schemas, ())
            return expanded
    raise DefinitionError(f"the OpenAPI document of {group}/{version} does not describe {kind}")


def _expanded(schema: Any, schemas: Mapping[str, Any], inside: tuple[str, ...]) -> Any:
    """Returns a schema with its references replaced; a definition inside itself becomes any value."""
    if isinstance(schema, list):
        return [_expanded(each, schemas, inside) for each in cast("list[object]", schema)]
    if not isinstance(schema, dict):
        return schema
    given = cast("dict[str, Any]", schema)
    references = [each["$ref"] for each in (given, *given.get("allOf", ())) if "$ref" in each]
    if not references:
        return {key: _expanded_part(key, value, schemas, inside) for key, value in given.items()}
    target: str = references[0].rpartition("/")[2]
    if target in inside or target not in schemas:
        return {}
    if target.endswith(".api.resource.Quantity"):  # `oneOf` in OpenAPI documents
        return {"x-kubernetes-int-or-string": True, "pattern": "KMGTPE"}
    found: dict[str, Any] = {**_expanded(schemas[target], schemas, (*inside, target))}
    if "description" in given:
        found["description"] = given["description"]
    return found


def _expanded_part(key: str, value: Any, schemas: Mapping[str, Any], inside: tuple[str, ...]) -> Any:
    if key == "properties":  # names of fields, which may be `$ref` and `allOf`
        return {name: _expanded(part, schemas, inside) for name, part in value.items()}
    return _expanded(value, schemas, inside)
