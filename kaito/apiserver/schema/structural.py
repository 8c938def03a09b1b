"""Structural schemas: pruning and defaulting of objects.

A `Schema` is a thin, lazily compiled view of an OpenAPI v3 schema: of a CRD version or of a built-in type. The writing
modules call `prune` and `fill_defaults` on a private copy of the object; `validation` and `apply` walk the same class.
The order of the steps and their details follow `apiextensions-apiserver/pkg/apiserver/schema`.
"""

from __future__ import annotations

from collections.abc import Mapping

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


class Schema:
    """One node of a structural schema. Children are compiled on first use, so recursive schemas are possible."""

    __slots__ = (
        "_additional",
        "_declared",
        "_definitions",
        "_items",
        "_properties",
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
        self._properties: dict[str, Schema] = {}
        self._declared: dict[str, Schema] | None = None
        self._items: Schema | None = None
        self._additional: Schema | None = None

    def declares(self, name: str) -> bool:
        """Returns whether a property is written out in the schema."""
        return name in part(self.raw, "properties")

    def declared(self) -> dict[str, Schema]:
        """Returns the written-out properties."""
        if self._declared is None:
            names: dict[str, Object] = part(self.raw, "properties")
            self._declared = {name: self._property(name, raw) for name, raw in names.items()}
        return self._declared

    def child(self, name: str) -> Schema | None:
        """Returns the schema of a property: the declared one, else that of additional properties, else None."""
        found = self._properties.get(name)
        if found is not None:
            return found
        properties: dict[str, Object] = self.raw.get("properties") or {}
        raw = properties.get(name)
        return self.additional if raw is None else self._property(name, raw)

    @property
    def additional(self) -> Schema | None:
        """Schema of properties that are not written out, or None."""
        raw = self.raw.get("additionalProperties")
        if self._additional is None and is_object(raw):
            self._additional = Schema(raw, self._definitions)
        return self._additional

    @property
    def open(self) -> bool:
        """Whether unknown properties are kept without a schema of their own."""
        return self.preserve or self.opaque or self.raw.get("additionalProperties") is True

    @property
    def items(self) -> Schema | None:
        """Schema of list items, or None."""
        raw = self.raw.get("items")
        if self._items is None and is_object(raw):
            self._items = Schema(raw, self._definitions)
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
        source: Object = value
        for name in list(source):
            child = schema.child(name)
            if child is None:
                continue
            if source[name] is None:
                if not child.nullable and not child.has_default:
                    del source[name]
            else:
                drop_nulls(source[name], child)
    elif is_list(value) and schema.items is not None:
        entries: list[Json] = value
        for item in entries:
            drop_nulls(item, schema.items)


def fill_defaults(value: Json, schema: Schema) -> None:
    """Fills in the defaults of the schema, in place: parents before their children."""
    if is_object(value):
        source: Object = value
        declared = schema.declared()
        for name, child in declared.items():
            missing = name not in source or (source[name] is None and not child.nullable)
            if missing and child.has_default:
                source[name] = copy_json(child.default)
            if name in source:
                fill_defaults(source[name], child)
        additional = schema.additional
        if additional is not None:
            for name, item in source.items():
                if name in declared:
                    continue
                if item is None and not additional.nullable and additional.has_default:
                    source[name] = copy_json(additional.default)
                fill_defaults(source[name], additional)
    elif is_list(value) and schema.items is not None:
        items = schema.items
        entries: list[Json] = value
        for index, item in enumerate(entries):
            if item is None and not items.nullable and items.has_default:
                entries[index] = copy_json(items.default)
            fill_defaults(entries[index], items)


def fill_zeros(value: Json, schema: Schema) -> None:
    """Fills in fields that Go serializes even when they are empty, in place: structs, and required scalars of built-in
    types."""
    if is_list(value):
        entries: list[Json] = value
        if schema.items is not None:
            for item in entries:
                fill_zeros(item, schema.items)
        return
    if not is_object(value):
        return
    source: Object = value
    for name, child in schema.declared().items():
        if name == "metadata" and name not in source and "apiVersion" in source:
            continue
        if name not in source:
            zero = child.raw.get("default")
            if zero == {} and child.declared():
                source[name] = {}
            elif zero is not None and not zero and not is_nested(zero):
                source[name] = zero
        if name in source and name != "metadata":
            fill_zeros(source[name], child)


def zero_value(schema: Schema) -> Json:
    """Returns an empty object of a built-in type, with the Go structs inside it.

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
