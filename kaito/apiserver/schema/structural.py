"""Structural schemas: pruning and defaulting of objects.

A `Schema` is a thin, lazily compiled view of an OpenAPI v3 schema: of a CRD version or of a built-in type. The writing
modules call `prune` and `fill_defaults` on a private copy of the object; `validation` and `apply` walk the same class.
The order of the steps and their details follow `apiextensions-apiserver/pkg/apiserver/schema`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from kaito.apiserver.wire import Json, Object, copy_json, is_list, is_nested, is_object, part

_REF = "#/components/schemas/"


def _resolved(raw: Object, definitions: Mapping[str, Object]) -> Object:
    """Follows a reference, which built-in documents write as `allOf` with one part."""
    parts = raw.get("allOf")
    if parts and len(parts) == 1 and "$ref" in parts[0]:
        raw = {**{key: value for key, value in raw.items() if key != "allOf"}, **parts[0]}
    if "$ref" not in raw:
        return raw
    name = str(raw["$ref"]).removeprefix(_REF)
    own = {key: value for key, value in raw.items() if key != "$ref"}
    return {**definitions[name], **own, "x-name": name, "x-quantity": name.endswith("resource.Quantity")}


def _object_or_none(raw: Json) -> Object | None:
    return raw if is_object(raw) else None


class Schema:
    """One node of a structural schema. Children are compiled on first use, so recursive schemas are possible."""

    __slots__ = (
        "_additional",
        "_declared",
        "_defaulted",
        "_definitions",
        "_items",
        "_properties",
        "_raw_additional",
        "_raw_items",
        "_raw_properties",
        "_zeros",
        "default",
        "embedded",
        "has_default",
        "has_rules",
        "int_or_string",
        "list_keys",
        "list_type",
        "map_type",
        "merge_key",
        "merge_strategy",
        "nullable",
        "opaque",
        "passed",
        "preserve",
        "quantity",
        "raw",
        "rules",
        "struct",
        "type",
    )

    def __init__(self, raw: Object, definitions: Mapping[str, Object] | None = None) -> None:
        self._definitions = definitions
        builtin = definitions is not None
        if definitions is not None:
            raw = _resolved(raw, definitions)
        self.raw: Object = raw
        self.type: str = raw.get("type", "")
        self.int_or_string: bool = raw.get("x-kubernetes-int-or-string", False) or raw.get("format") == "int-or-string"
        self.preserve: bool = raw.get("x-kubernetes-preserve-unknown-fields", False)
        self.embedded: bool = raw.get("x-kubernetes-embedded-resource", False)
        self.nullable: bool = raw.get("nullable", False)
        self.has_default: bool = bool(raw.get("default")) if builtin else "default" in raw
        """Built-in schemas state Go's zero values as defaults, which are equal to absence."""
        self.default: Json = raw.get("default")
        self.list_type: str = raw.get("x-kubernetes-list-type", "atomic")
        self.list_keys: tuple[str, ...] = tuple(raw.get("x-kubernetes-list-map-keys", ()))
        self.map_type: str = raw.get("x-kubernetes-map-type", "granular")
        self.merge_key: str = raw.get("x-kubernetes-patch-merge-key", "")
        self.merge_strategy: str = raw.get("x-kubernetes-patch-strategy", "")
        self.opaque: bool = builtin and not (
            raw.get("properties") or raw.get("additionalProperties") or raw.get("items")
        )
        """A built-in type that holds arbitrary JSON (RawExtension, FieldsV1, JSON)."""
        self.quantity = builtin and raw.get("x-quantity", False)
        self.rules: list[Object] = raw.get("x-kubernetes-validations") or []
        self.has_rules: bool | None = None
        """Whether this schema or one below it has CEL rules; computed on first use."""
        self.passed: set[tuple[str, bytes, bytes]] = set()
        """Cache keys of evaluations in which the CEL rules of this node held (written by `cel`)."""
        self.struct: str = str(raw.get("x-name", "")).rpartition(".")[2]
        """Name of the Go struct of a built-in type; empty for other schemas."""
        self._raw_properties: Object = part(raw, "properties")
        self._raw_additional: Object | None = _object_or_none(raw.get("additionalProperties"))
        self._raw_items: Object | None = _object_or_none(raw.get("items"))
        self._properties: dict[str, Schema] = {}
        self._declared: dict[str, Schema] | None = None
        self._items: Schema | None = None
        self._additional: Schema | None = None
        self._defaulted: list[tuple[str, Schema]] | None = None
        self._zeros: list[tuple[str, Json]] | None = None

    def declares(self, name: str) -> bool:
        """Returns whether a property is written out in the schema."""
        return name in self._raw_properties

    def declared(self) -> dict[str, Schema]:
        """Returns the written-out properties."""
        if self._declared is None:
            self._declared = {name: self._property(name, raw) for name, raw in self._raw_properties.items()}
        return self._declared

    def defaulted(self) -> list[tuple[str, Schema]]:
        """Returns the written-out properties that have a default, with their names."""
        if self._defaulted is None:
            self._defaulted = [(name, child) for name, child in self.declared().items() if child.has_default]
        return self._defaulted

    def zeros(self) -> list[tuple[str, Json]]:
        """Returns the properties that Go serializes even when they are empty, with their zero values."""
        if self._zeros is None:
            self._zeros = []
            for name, child in self.declared().items():
                zero = child.raw.get("default")
                is_struct = zero == {} and bool(child.declared())
                if is_struct or (zero is not None and not zero and not is_nested(zero)):
                    self._zeros.append((name, zero))
        return self._zeros

    def child(self, name: str) -> Schema | None:
        """Returns the schema of a property: the declared one, else that of additional properties, else None."""
        found = self._properties.get(name)
        if found is not None:
            return found
        raw = self._raw_properties.get(name)
        return self.additional if raw is None else self._property(name, raw)

    @property
    def additional(self) -> Schema | None:
        """Schema of properties that are not written out, or None."""
        if self._additional is None and self._raw_additional is not None:
            self._additional = Schema(self._raw_additional, self._definitions)
        return self._additional

    @property
    def open(self) -> bool:
        """Whether unknown properties are kept without a schema of their own."""
        return self.preserve or self.opaque or self.raw.get("additionalProperties") is True

    @property
    def items(self) -> Schema | None:
        """Schema of list items, or None."""
        if self._items is None and self._raw_items is not None:
            self._items = Schema(self._raw_items, self._definitions)
        return self._items

    def _property(self, name: str, raw: Object) -> Schema:
        found = self._properties.get(name)
        if found is None:
            found = self._properties[name] = Schema(raw, self._definitions)
        return found


_ROOT_FIELDS = frozenset({"apiVersion", "kind", "metadata"})


def prune(value: Json, schema: Schema, *, root: bool = True, path: str = "") -> list[str]:
    """Removes fields that are not in the schema, in place; returns their paths.

    The root and embedded resources keep apiVersion, kind and metadata regardless of the schema.
    """
    if is_object(value):
        return _prune_object(value, schema, root=root or schema.embedded, path=path)
    if is_list(value):
        items = schema.items
        removed: list[str] = []
        if items is not None:
            entries: list[Json] = value
            for index, item in enumerate(entries):
                removed += prune(item, items, root=False, path=f"{path}[{index}]")
        return removed
    return []


OBJECT_META_FIELDS = frozenset(
    {
        "annotations",
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "labels",
        "managedFields",
        "name",
        "namespace",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
        "uid",
    }
)


def _prune_embedded_metadata(metadata: Object, path: str) -> list[str]:
    unknown = [name for name in metadata if name not in OBJECT_META_FIELDS]
    for name in unknown:
        del metadata[name]
    return [f"{path}.{name}" for name in unknown]


def _prune_object(value: Object, schema: Schema, *, root: bool, path: str) -> list[str]:
    removed: list[str] = []
    if schema.embedded and is_object(value.get("metadata")):
        removed += _prune_embedded_metadata(value["metadata"], f"{path}.metadata")
    for name in list(value):
        if root and name in _ROOT_FIELDS:
            continue
        here = f"{path}.{name}" if path else name
        child = schema.child(name)
        if child is not None:
            item = value[name]
            if is_nested(item):
                removed += prune(item, child, root=False, path=here)
        elif not schema.open:
            del value[name]
            removed.append(here)
    return removed


def drop_nulls(value: Json, schema: Schema) -> None:
    """Removes nulls where the schema neither allows them nor has a default, in place."""
    if is_object(value):
        for name, item in list(value.items()):
            if item is None:
                child = schema.child(name)
                if child is not None and not child.nullable and not child.has_default:
                    del value[name]
            elif is_nested(item):
                child = schema.child(name)
                if child is not None:
                    drop_nulls(item, child)
    elif is_list(value) and schema.items is not None:
        items = schema.items
        entries: list[Json] = value
        for item in entries:
            if is_nested(item):
                drop_nulls(item, items)


def fill_defaults(value: Json, schema: Schema) -> None:
    """Fills in the defaults of the schema, in place: parents before their children."""
    if is_object(value):
        _fill_properties(value, schema)
        for name, item in value.items():
            if is_nested(item):
                child = schema.child(name)
                if child is not None:
                    fill_defaults(item, child)
    elif is_list(value) and schema.items is not None:
        items = schema.items
        entries: list[Json] = value
        for index, item in enumerate(entries):
            if item is None and not items.nullable and items.has_default:
                entries[index] = copy_json(items.default)
            if is_nested(entries[index]):
                fill_defaults(entries[index], items)


def _fill_properties(value: Object, schema: Schema) -> None:
    for name, child in schema.defaulted():
        if name not in value or (value[name] is None and not child.nullable):
            value[name] = copy_json(child.default)
    additional = schema.additional
    if additional is not None and additional.has_default and not additional.nullable:
        for name, item in value.items():
            if item is None and not schema.declares(name):
                value[name] = copy_json(additional.default)


def fill_zeros(value: Json, schema: Schema) -> None:
    """Fills in fields that Go serializes even when they are empty, in place: structs, and required scalars of built-in
    types."""
    if is_list(value):
        entries: list[Json] = value
        items = schema.items
        if items is not None:
            for item in entries:
                if is_nested(item):
                    fill_zeros(item, items)
        return
    if not is_object(value):
        return
    source: Object = value
    for name, zero in schema.zeros():
        if name not in source and not (name == "metadata" and "apiVersion" in source):
            source[name] = copy_json(zero)
    for name, item in source.items():
        if is_nested(item) and name != "metadata" and schema.declares(name):
            inner = schema.child(name)
            if inner is not None:
                fill_zeros(item, inner)


@cache
def zero_value(schema: Schema) -> Json:
    """Returns an empty object of a built-in type, with the Go structs inside it. It must not be changed.

    Ownership of a created object is computed against it, so that fields which are always present have no owner.
    """
    zero: Object = {}
    needed: list[str] = schema.raw.get("required") or []
    for name, child in schema.declared().items():
        if child.raw.get("default") == {} and child.declared():
            zero[name] = zero_value(child)
        elif name in needed and child.type in {"array", "object"}:
            zero[name] = None
        elif "default" in child.raw and not child.has_default and not child.declared():
            zero[name] = child.raw["default"]
    return zero
