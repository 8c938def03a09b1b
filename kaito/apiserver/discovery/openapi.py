"""OpenAPI documents: v3 for each group version and v2 for everything, as kubectl reads them.

Definitions of built-in kinds come from the Kubernetes release, those of custom resources from their CRDs. Paths are
listed with what clients look up there: the kind of each operation and the parameters of writes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from kaito.apiserver.discovery.groups import group_versions
from kaito.apiserver.registry.builtin_schemas import OBJECT_META, definition_name, definitions
from kaito.apiserver.registry.resources import Registry, Resource
from kaito.apiserver.wire import Json, Object, copy_json, encode, is_list, is_object, part

_REF = "#/components/schemas/"
_ALWAYS = (
    OBJECT_META,
    "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
    "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
)
_API_VERSION = (
    "APIVersion defines the versioned schema of this representation of an object. Servers "
    "should convert recognized schemas to "
    "the latest internal value, and may reject unrecognized values. More info: "
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources"
)
_KIND = (
    "Kind is a string value representing the REST resource this object represents. Servers may "
    "infer this from the endpoint "
    "the client submits requests to. Cannot be updated. In CamelCase. More info: "
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds"
)
_METADATA = (
    "Standard object's metadata. More info: "
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"
)


def schema_name(resource: Resource) -> str:
    """Returns the name of a resource's definition: `io.kaito.v1.Workspace` for kind Workspace of group kaito.io."""
    if not resource.custom:
        found = definition_name(resource.group, resource.version, resource.kind)
        return found or f"io.k8s.unknown.{resource.kind}"
    return f"{'.'.join(reversed(resource.group.split('.')))}.{resource.version}.{resource.kind}"


def _gvk(resource: Resource) -> Object:
    return {"group": resource.group, "version": resource.version, "kind": resource.kind}


def _custom_definition(resource: Resource) -> Object:
    raw: Object = {**(resource.schema.raw if resource.schema is not None else {})}
    properties: Object = {**part(raw, "properties")}
    properties["apiVersion"] = {"type": "string", "description": _API_VERSION}
    properties["kind"] = {"type": "string", "description": _KIND}
    properties["metadata"] = {"allOf": [{"$ref": _REF + OBJECT_META}], "description": _METADATA}
    raw["type"] = "object"
    raw["properties"] = properties
    raw["x-kubernetes-group-version-kind"] = [_gvk(resource)]
    return raw


def _references(value: Json) -> Iterable[str]:
    if is_object(value):
        for key, item in value.items():
            if key == "$ref" and isinstance(item, str):
                yield item.removeprefix(_REF)
            else:
                yield from _references(item)
    elif is_list(value):
        items: list[Json] = value
        for item in items:
            yield from _references(item)


def _schemas(resources: list[Resource]) -> Object:
    found: Object = {}
    wanted: list[str] = [*_ALWAYS]
    for resource in resources:
        name = schema_name(resource)
        if resource.custom:
            found[name] = _custom_definition(resource)
        else:
            wanted.append(name)
    known = definitions()
    while wanted:
        name = wanted.pop()
        if name not in found and name in known:
            found[name] = known[name]
            wanted += _references(known[name])
    return found


def _parameter(name: str, kind: str = "string") -> Object:
    return {"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": True}}


_WRITE = [_parameter("dryRun"), _parameter("fieldManager"), _parameter("fieldValidation"), _parameter("pretty")]
_PATCH = [*_WRITE, _parameter("force", "boolean")]


def _operation(resource: Resource, action: str, parameters: list[Object]) -> Object:
    content = {"application/json": {"schema": {"$ref": _REF + schema_name(resource)}}}
    return {
        "description": f"{action} {resource.kind}",
        "operationId": f"{action}{resource.group.title().replace('.', '')}{resource.version.title()}{resource.kind}",
        "parameters": parameters,
        "responses": {"200": {"description": "OK", "content": content}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _gvk(resource),
    }


def _paths(resources: list[Resource]) -> Object:
    paths: Object = {}
    for resource in resources:
        root = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
        scope = "/namespaces/{namespace}" if resource.namespaced else ""
        collection: Object = {"post": _operation(resource, "post", _WRITE)}
        if "list" in resource.verbs:
            collection["get"] = _operation(
                resource, "list", [_parameter("labelSelector"), _parameter("watch", "boolean")]
            )
            paths[f"{root}{scope}/{resource.plural}/{{name}}"] = {
                "get": _operation(resource, "get", []),
                "put": _operation(resource, "put", _WRITE),
                "patch": _operation(resource, "patch", _PATCH),
                "delete": _operation(resource, "delete", [_parameter("dryRun")]),
            }
        paths[f"{root}{scope}/{resource.plural}"] = collection
    return paths


class OpenApi:
    """The documents of one registry, built on request and cached until the registry changes."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._revision = -1
        self._documents: dict[str, bytes] = {}

    def serve(self, path: str) -> bytes | None:
        """Returns the document at a path below `/openapi`, or None."""
        if self._revision != self._registry.revision:
            self._documents.clear()
            self._revision = self._registry.revision
        found = self._documents.get(path)
        if found is None:
            built = self._build(path)
            if built is None:
                return None
            found = self._documents[path] = encode(built)
        return found

    def _build(self, path: str) -> Object | None:
        if path == "/openapi/v2":
            return self._version_2()
        if path == "/openapi/v3":
            return {"paths": {name: self._link(name) for name in self._names()}}
        name = path.removeprefix("/openapi/v3/")
        if name not in self._names():
            return None
        resources = self._resources(name)
        return {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": "v1.35.4"},
            "paths": _paths(resources),
            "components": {"schemas": _schemas(resources)},
        }

    def _names(self) -> list[str]:
        names: list[str] = []
        for group, versions in group_versions(self._registry).items():
            names += [f"apis/{group}/{version}" if group else f"api/{version}" for version in versions]
        return names

    def _resources(self, name: str) -> list[Resource]:
        root, _, rest = name.partition("/")
        group, _, version = rest.rpartition("/") if root == "apis" else ("", "", rest)
        return [found for found in self._registry.all() if (found.group, found.version) == (group, version)]

    def _link(self, name: str) -> Object:
        shown = encode([[schema_name(found), id(found.schema)] for found in self._resources(name)])
        digest = hashlib.sha256(shown).hexdigest()[:32].upper()
        return {"serverRelativeURL": f"/openapi/v3/{name}?hash={digest}"}

    def _version_2(self) -> Object:
        resources = self._registry.all()
        document: Object = {
            "swagger": "2.0",
            "info": {"title": "Kubernetes", "version": "v1.35.4"},
            "paths": _paths(resources),
            "definitions": _schemas(resources),
        }
        converted: Object = _as_version_2(copy_json(document))
        return converted


_NOT_IN_VERSION_2 = frozenset({"nullable", "oneOf", "anyOf", "not"})


def _as_version_2(value: Json) -> Json:
    """Returns a document in OpenAPI v2's dialect: references, and no keywords that v2 does not have."""
    if is_list(value):
        items: list[Json] = value
        return [_as_version_2(item) for item in items]
    if not is_object(value):
        return value
    source: Object = value
    parts = source.get("allOf")
    if is_list(parts) and len(parts) == 1 and "$ref" in parts[0]:
        return {"$ref": parts[0]["$ref"].replace(_REF, "#/definitions/")}
    converted: Object = {}
    for key, item in source.items():
        if key == "$ref":
            converted[key] = str(item).replace(_REF, "#/definitions/")
        elif key == "content":
            converted["schema"] = _as_version_2(item["application/json"]["schema"])
        elif (
            key not in _NOT_IN_VERSION_2
            or not isinstance(item, bool | list | dict)
            or key in source.get("properties", {})
        ):
            converted[key] = _as_version_2(item)
    if converted.get("in") == "query":
        converted.update(converted.pop("schema", {}))
    return converted
