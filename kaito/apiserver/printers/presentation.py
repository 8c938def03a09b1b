"""Renders objects for a client: in full, as a `Table`, or as metadata only.

Negotiated by the Accept header; kubectl requests tables, metadata-only informers request PartialObjectMetadata.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kaito.apiserver import errors
from kaito.apiserver.printers.table import table_columns, table_row
from kaito.apiserver.registry.resources import Resource, view
from kaito.apiserver.registry.server_state import ServerState
from kaito.apiserver.registry.store import Stored, encode_view
from kaito.apiserver.schema.structural import zero_value
from kaito.apiserver.wire import HttpRequest, Object, encode

META = "meta.k8s.io/v1"


@dataclass(slots=True)
class Presentation:
    """One negotiated form."""

    state: ServerState
    form: str
    """object, table or metadata."""
    include: str = "Metadata"
    """What rows of a table carry: None, Metadata or Object (`includeObject`)."""
    headed: bool = False
    """Whether this response has already sent the table's column definitions (watches send them once)."""

    @property
    def plain(self) -> bool:
        """Whether objects are rendered in full, so that their bytes can be shared."""
        return self.form == "object"

    def one(self, resource: Resource, stored: Stored) -> bytes:
        """Returns a single object."""
        if self.form == "table":
            return self._table(resource, [stored], stored.metadata.get("resourceVersion", ""))
        return self._body(resource, stored)

    def event(self, resource: Resource, stored: Stored) -> bytes:
        """Returns the object of a watch event."""
        if self.form != "table":
            return self._body(resource, stored)
        headed, self.headed = self.headed, True
        return self._table(resource, [stored], stored.metadata.get("resourceVersion", ""), columns=not headed)

    def bookmark(self, resource: Resource, metadata: Object) -> bytes:
        """Returns the object of a bookmark."""
        if self.form == "table":
            table: Object = {
                "kind": "Table",
                "apiVersion": META,
                "metadata": {"resourceVersion": metadata["resourceVersion"]},
                "columnDefinitions": None,
                "rows": [
                    {"cells": [], "object": {"kind": "PartialObjectMetadata", "apiVersion": META, "metadata": metadata}}
                ],
            }
            return encode(table)
        if self.form == "metadata":
            return encode({"kind": "PartialObjectMetadata", "apiVersion": META, "metadata": metadata})
        # A real server sends an empty object of the type, with everything in it that Go prints when empty.
        head: Object = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
        empty: Object = {} if resource.custom or resource.schema is None else zero_value(resource.schema)
        return encode({**head, **{name: value for name, value in empty.items() if name not in head}})

    def many(self, resource: Resource, items: Sequence[Stored], metadata: Object) -> bytes:
        """Returns a list."""
        if self.form == "table":
            return self._table(resource, items, metadata.get("resourceVersion", ""), extra=metadata)
        partial = self.form == "metadata"
        kind = "PartialObjectMetadataList" if partial else resource.listed_kind
        api_version = META if partial else resource.api_version
        if resource.custom and not partial:
            metadata = {"continue": "", **metadata}  # always printed for custom resources
        head = encode({"kind": kind, "apiVersion": api_version, "metadata": metadata})
        bodies = b",".join(self._item(resource, stored) for stored in items)
        return head[:-1] + b',"items":[' + bodies + b"]}"

    def _body(self, resource: Resource, stored: Stored) -> bytes:
        if self.form == "metadata":
            return encode(_partial(stored))
        return encode_view(stored, resource.api_version, view(stored, resource))

    def _item(self, resource: Resource, stored: Stored) -> bytes:
        """Returns an object inside a list: built-in types leave apiVersion and kind to the list."""
        if self.form == "metadata" or resource.custom:
            return self._body(resource, stored)
        key = f"item {resource.api_version}"
        found = stored.encoded.get(key)
        if found is None:
            shown = view(stored, resource)
            bare = {name: value for name, value in shown.items() if name not in {"apiVersion", "kind"}}
            found = stored.encoded[key] = encode(bare)
        return found

    def _table(
        self,
        resource: Resource,
        items: Sequence[Stored],
        rv: str,
        *,
        columns: bool = True,
        extra: Object | None = None,
    ) -> bytes:
        rows: list[Object] = []
        now = self.state.now()
        for stored in items:
            data = view(stored, resource)
            row: Object = {"cells": table_row(resource, data, now)}
            if self.include == "Object":
                row["object"] = data
            elif self.include == "Metadata":
                row["object"] = _partial(stored)
            else:
                row["object"] = None
            rows.append(row)
        table: Object = {
            "kind": "Table",
            "apiVersion": META,
            "metadata": {"resourceVersion": rv} if extra is None else extra,
            "columnDefinitions": table_columns(resource) if columns else None,
            "rows": rows,
        }
        return encode(table)


def _partial(stored: Stored) -> Object:
    return {"kind": "PartialObjectMetadata", "apiVersion": META, "metadata": stored.data["metadata"]}


def negotiate(state: ServerState, request: HttpRequest, *, lists: bool) -> Presentation:
    """Returns the form that the Accept header requests; 406 when it accepts none of the available forms."""
    accept = request.headers.get("accept", "")
    if not accept:
        return Presentation(state, "object")
    for part in accept.split(","):
        media, _, parameters = part.strip().partition(";")
        if media.strip() not in {"application/json", "*/*", "application/*"}:
            continue
        pairs = [item.strip().partition("=") for item in parameters.split(";") if "=" in item]
        options = {name: value for name, _, value in pairs}
        wanted = options.get("as", "")
        if not wanted:
            return Presentation(state, "object")
        if options.get("g") != "meta.k8s.io" or options.get("v") not in {"v1", "v1beta1"}:
            continue
        if wanted == "Table":
            return Presentation(state, "table", request.param("includeObject") or "Metadata")
        if wanted == ("PartialObjectMetadataList" if lists else "PartialObjectMetadata"):
            return Presentation(state, "metadata")
        if wanted == "PartialObjectMetadata" and request.flag("watch"):
            return Presentation(state, "metadata")
    raise errors.not_acceptable()
