"""Turns stored CustomResourceDefinitions into served resources and sets their conditions."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from kaito.apiserver.patch.managed_fields import record_write
from kaito.apiserver.registry.builtin_schemas import ownership_schema
from kaito.apiserver.registry.resources import Column, Resource, Scale
from kaito.apiserver.registry.server_state import Context, ServerState
from kaito.apiserver.registry.store import Change, Stored
from kaito.apiserver.schema.structural import Schema, fill_defaults, prune
from kaito.apiserver.wire import Object, copy_json, decode, encode, part

STORAGE = "customresourcedefinitions.apiextensions.k8s.io"


VERBS = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")
"""Verbs of custom resources, in the order in which the real server lists them."""


def default_definition(data: Object) -> None:
    """Fills in what the server defaults in a definition, in place."""
    spec: Object = data.setdefault("spec", {})
    names: Object = spec.setdefault("names", {})
    kind = str(names.get("kind", ""))
    if kind:
        names.setdefault("singular", kind.lower())
        names.setdefault("listKind", f"{kind}List")
    spec.setdefault("conversion", {"strategy": "None"})


def served_resources(data: Object) -> list[Resource]:
    """Returns one resource for each served version of a definition."""
    spec: Object = data["spec"]
    names: Object = spec["names"]
    versions: list[Object] = spec["versions"]
    storage = next((version["name"] for version in versions if version.get("storage")), "")
    storage_schema = next((_schema(spec, version) for version in versions if version.get("storage")), None)
    return [
        replace(_resource(spec, names, version, str(storage)), storage_schema=storage_schema)
        for version in versions
        if version.get("served")
    ]


def _schema(spec: Object, version: Object) -> Schema:
    if spec.get("preserveUnknownFields"):
        return Schema({"x-kubernetes-preserve-unknown-fields": True})
    return _compiled(encode(part(version, "schema", "openAPIV3Schema")))


@lru_cache(maxsize=64)
def _compiled(text: bytes) -> Schema:
    """Returns the schema of a JSON text.

    All servers of a process share it, with what it has compiled and the results of its CEL rules, which depend on
    nothing but the schema and the values: tests make many servers with the same definitions.
    """
    return Schema(decode(text))


def _resource(spec: Object, names: Object, version: Object, storage_version: str) -> Resource:
    subresources: Object = version.get("subresources") or {}
    scale: Object | None = subresources.get("scale")
    group, name = str(spec["group"]), str(version["name"])
    warning = ""
    if version.get("deprecated"):
        warning = version.get("deprecationWarning") or f"{group}/{name} {names['kind']} is deprecated"
    schema = _schema(spec, version)
    return Resource(
        group=group,
        version=name,
        kind=str(names["kind"]),
        plural=str(names["plural"]),
        namespaced=spec.get("scope") == "Namespaced",
        singular=str(names.get("singular", "")),
        list_kind=str(names.get("listKind", "")),
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        subresources=frozenset(part for part in ("status", "scale") if subresources.get(part) is not None),
        storage_version=storage_version,
        verbs=VERBS,
        custom=True,
        schema=schema,
        ownership_schema=ownership_schema(schema),
        converter=_converter(spec),
        columns=tuple(_column(item) for item in version.get("additionalPrinterColumns") or ()),
        scale=None if scale is None else _scale(scale),
        selectable_fields=tuple(str(item["jsonPath"]).lstrip(".") for item in version.get("selectableFields") or ()),
        deprecation=str(warning),
    )


def _converter(spec: Object) -> Object | None:
    conversion = part(spec, "conversion")
    return part(conversion, "webhook", "clientConfig") if conversion.get("strategy") == "Webhook" else None


def _scale(raw: Object) -> Scale:
    return Scale(
        replicas=str(raw["specReplicasPath"]),
        status_replicas=str(raw["statusReplicasPath"]),
        selector=str(raw.get("labelSelectorPath") or ""),
    )


def _column(item: Object) -> Column:
    return Column(
        name=str(item["name"]),
        type=str(item["type"]),
        path=str(item["jsonPath"]),
        format=str(item.get("format") or ""),
        description=str(
            item.get("description") or f"Custom resource definition column (in JSONPath format): {item['jsonPath']}"
        ),
        priority=int(item.get("priority") or 0),
    )


class Definitions:
    """Synchronizes the registry with the stored definitions."""

    def __init__(self, state: ServerState) -> None:
        self._state = state
        state.store.listeners.append(self._changed)

    def _changed(self, storage: str, change: Change) -> None:
        if storage != STORAGE:
            return
        spec: Object = change.stored.data["spec"]
        group, plural = str(spec["group"]), str(spec["names"]["plural"])
        if change.type == "DELETED":
            self._state.registry.remove_type(group, plural)
            self._state.store.drop(f"{plural}.{group}")
            return
        if change.previous is None or change.previous.data["spec"] != spec:
            self._state.registry.remove_type(group, plural)
            resources = served_resources(change.stored.data)
            for resource in resources:
                self._state.registry.add(resource)
            if change.previous is not None:
                self._reshape(f"{plural}.{group}", resources)
        if change.previous is None or change.previous.data["spec"] != spec:
            self._establish(change.stored)

    def _reshape(self, storage: str, resources: list[Resource]) -> None:
        """Prunes and defaults existing objects with a changed schema, as kube-apiserver does when it reads them from
        etcd."""
        schema = resources[0].storage_schema if resources else None
        watch_cache = self._state.store.watch_cache(storage)
        for key, stored in list(watch_cache.objects.items()):
            data: Object = copy_json({**stored.data})
            foreign = resources and resources[0].converter and data["apiVersion"] != resources[0].stored_api_version
            if schema is not None and not foreign:
                prune(data, schema)
                fill_defaults(data, schema)
            watch_cache.objects[key] = Stored(key, stored.rv, data)

    def _establish(self, stored: Stored) -> None:
        data = copy_json(stored.data)
        spec, status = data["spec"], data.setdefault("status", {})
        now = self._state.timestamp()
        known = {item["type"]: item for item in status.get("conditions") or ()}
        wanted = (
            ("NamesAccepted", "NoConflicts", "no conflicts found"),
            ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        )
        for kind, reason, message in wanted:
            if kind not in known:
                known[kind] = {
                    "type": kind,
                    "status": "True",
                    "lastTransitionTime": now,
                    "reason": reason,
                    "message": message,
                }
        status["conditions"] = list(known.values())
        status["acceptedNames"] = spec["names"]
        current = next(str(version["name"]) for version in spec["versions"] if version.get("storage"))
        stored_versions: list[str] = status.get("storedVersions") or []
        status["storedVersions"] = stored_versions if current in stored_versions else [*stored_versions, current]
        if data == stored.data:
            return
        holder = self._state.registry.find("apiextensions.k8s.io", "v1", "customresourcedefinitions")
        if holder is not None:
            context = Context("system:apiserver", (), "kube-apiserver", [])
            record_write(self._state, holder, data, stored.data, context, "status")
        self._state.store.replace(STORAGE, stored, data)
