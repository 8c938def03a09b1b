"""The served resources: `Resource`, one served version of one type, and the `Registry` of all of them.

Built-in types come from the table in `builtin`, custom ones from `definitions`. Discovery, routing, storage and
printing all read from here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kaito.apiserver.registry.events import convert_event
from kaito.apiserver.wire import Object

if TYPE_CHECKING:
    from kaito.apiserver.registry.store import Stored
    from kaito.apiserver.schema.structural import Schema

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class Column:
    """One printer column of a `Table`."""

    name: str
    type: str
    path: str
    """JSON path in kubectl's simple form, for example `.spec.replicas`; built-in tables compute their cells instead."""
    format: str = ""
    description: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Scale:
    """Where a custom resource keeps the fields of its `scale` subresource."""

    replicas: str
    status_replicas: str
    selector: str = ""


@dataclass(frozen=True, slots=True)
class Resource:
    """One served version of one resource type."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool
    singular: str = ""
    list_kind: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: frozenset[str] = frozenset()
    verbs: tuple[str, ...] = ALL_VERBS
    storage_version: str = ""
    storage_name: str = ""
    """Overrides the storage name, for types that share their objects (both kinds of Event)."""
    custom: bool = False
    has_generation: bool = False
    """Whether `metadata.generation` counts changes of this type (always for custom resources)."""
    schema: Schema | None = None
    ownership_schema: Schema | None = None
    """The schema with the server's own metadata, along which server-side apply merges and counts owners."""
    storage_schema: Schema | None = None
    """Schema of the stored version of a custom resource: what is kept is pruned and defaulted by it."""
    converter: Object | None = None
    """`clientConfig` of the conversion webhook of a custom resource; None when its versions differ in nothing."""
    columns: tuple[Column, ...] = ()
    scale: Scale | None = None
    selectable_fields: tuple[str, ...] = ()
    deprecation: str = ""
    """Warning sent with every response of a deprecated version."""

    @property
    def api_version(self) -> str:
        """`group/version`, or the version alone for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def storage(self) -> str:
        """Name under which the store keeps objects of all versions of this type."""
        return self.storage_name or (f"{self.plural}.{self.group}" if self.group else self.plural)

    @property
    def stored_api_version(self) -> str:
        """The apiVersion that objects are stored with."""
        version = self.storage_version or self.version
        return f"{self.group}/{version}" if self.group else version

    @property
    def listed_kind(self) -> str:
        """Kind of a list of these objects."""
        return self.list_kind or f"{self.kind}List"

    def has_status(self) -> bool:
        """Whether status is written through its own endpoint only."""
        return "status" in self.subresources


def group_of(api_version: str) -> str:
    """Returns the group of an apiVersion ("" for core)."""
    return api_version.partition("/")[0] if "/" in api_version else ""


def version_of(api_version: str) -> str:
    """Returns the version of an apiVersion."""
    return api_version.rpartition("/")[2]


class Registry:
    """All served resources, in the order they were added."""

    def __init__(self, resources: Iterable[Resource]) -> None:
        self._by_path: dict[tuple[str, str, str], Resource] = {}
        self._by_kind: dict[tuple[str, str, str], Resource] = {}
        self._by_storage: dict[str, Resource] | None = None
        self._group_versions: frozenset[tuple[str, str]] | None = None
        self.revision = 0
        """Counts changes, so that discovery and OpenAPI documents can be cached."""
        for resource in resources:
            self.add(resource)

    def add(self, resource: Resource) -> None:
        """Serves a resource, replacing an earlier definition of the same version."""
        self._by_path[resource.group, resource.version, resource.plural] = resource
        self._by_kind[resource.group, resource.version, resource.kind] = resource
        self._by_storage = self._group_versions = None
        self.revision += 1

    def remove_type(self, group: str, plural: str) -> None:
        """Stops serving all versions of a type."""
        for key, resource in list(self._by_path.items()):
            if resource.group == group and resource.plural == plural:
                del self._by_path[key]
                self._by_kind.pop((group, resource.version, resource.kind), None)
        self._by_storage = self._group_versions = None
        self.revision += 1

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        """Returns the resource at a URL path."""
        return self._by_path.get((group, version, plural))

    def find_kind(self, group: str, version: str, kind: str) -> Resource | None:
        """Returns the resource of a kind."""
        return self._by_kind.get((group, version, kind))

    def versions(self, resource: Resource) -> list[Resource]:
        """Returns the other served versions of a type."""
        return [
            found
            for found in self._by_path.values()
            if found is not resource and (found.group, found.plural) == (resource.group, resource.plural)
        ]

    def all(self) -> list[Resource]:
        """Returns every served resource."""
        return list(self._by_path.values())

    def stored_types(self) -> list[Resource]:
        """Returns one resource for each storage name."""
        return list(self._stored().values())

    def stored_type(self, storage: str) -> Resource | None:
        """Returns a resource of a storage name, the stored version if it is served."""
        return self._stored().get(storage)

    def _stored(self) -> dict[str, Resource]:
        if self._by_storage is None:
            seen: dict[str, Resource] = {}
            for resource in self._by_path.values():
                known = seen.get(resource.storage)
                if known is None or resource.api_version == resource.stored_api_version:
                    seen[resource.storage] = resource
            self._by_storage = seen
        return self._by_storage

    def has_group_version(self, group: str, version: str) -> bool:
        """Returns whether anything is served under a group and version."""
        if self._group_versions is None:
            self._group_versions = frozenset((found.group, found.version) for found in self._by_path.values())
        return (group, version) in self._group_versions

    def has_builtin_group(self, group: str) -> bool:
        """Returns whether a group has built-in types."""
        return any(found.group == group and not found.custom for found in self._by_path.values())

    def has_group(self, group: str) -> bool:
        """Returns whether anything is served under a group."""
        return any(found.group == group for found in self._by_path.values())


def has_view(stored: Stored, resource: Resource) -> bool:
    """Returns whether the view of an object in a version exists already."""
    return stored.data["apiVersion"] == resource.api_version or resource.api_version in stored.views


def view(stored: Stored, resource: Resource) -> Object:
    """Returns a stored object as a version serves it; the result is shared and must not be mutated.

    Views that a conversion webhook makes must be there already (`Conversions.prepare`).
    """
    api_version = resource.api_version
    if stored.data.get("apiVersion") == api_version:
        return stored.data
    found = stored.views.get(api_version)
    if found is None:
        found = stored.views[api_version] = convert(stored.data, resource, api_version)
    return found


def is_event(resource: Resource) -> bool:
    """Returns whether a resource is one of the two Event types."""
    return resource.storage == "events"


def convert(data: Object, resource: Resource, api_version: str) -> Object:
    """Returns an object in another version of its type.

    Conversion strategy None: only apiVersion changes, and what the target version does not know is pruned. Its defaults
    are not filled in: the real server does that for the stored version alone when it reads.
    """
    if data.get("apiVersion") == api_version:
        return data
    if resource.converter is not None:
        message = f"{resource.kind}: the view of {api_version} was not prepared"
        raise RuntimeError(message)

    if is_event(resource):
        return convert_event(data, api_version)
    converted = {**data, "apiVersion": api_version}
    if resource.schema is not None and resource.custom and api_version == resource.api_version:
        from kaito.apiserver.schema.structural import prune
        from kaito.apiserver.wire import copy_json

        converted = copy_json(converted)
        prune(converted, resource.schema)
    return converted
