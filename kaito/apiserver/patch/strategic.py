"""Strategic merge patch of built-in types: lists merge by the keys that the schema gives (`patchMergeKey`).

Directives: `$patch` (replace, delete, merge), `$retainKeys`, `$setElementOrder/<list>`,
`$deleteFromPrimitiveList/<list>`, as `apimachinery/pkg/util/strategicpatch` reads them.
"""

from __future__ import annotations

from collections.abc import Callable

from kaito.apiserver.errors import bad_request
from kaito.apiserver.registry.resources import Resource
from kaito.apiserver.schema.structural import Schema
from kaito.apiserver.wire import Json, Object, copy_json, is_list, is_object

_ORDER = "$setElementOrder/"
_DELETE = "$deleteFromPrimitiveList/"


def strategic_patch(resource: Resource) -> Callable[[Json, Json], Json]:
    """Returns the function that applies a strategic merge patch to objects of a type."""

    def apply(target: Json, patch: Json) -> Json:
        return _merge_map(target, patch, resource.ownership_schema)

    return apply


def _child(schema: Schema | None, name: str) -> Schema | None:
    return schema.child(name) if schema is not None else None


def _plain(value: Json) -> Json:
    """Returns a patch value without its directives, for places where nothing is there to merge into."""
    if is_object(value):
        items: Object = value
        if items.get("$patch") == "delete":
            return None
        return {name: _plain(item) for name, item in items.items() if not name.startswith("$") and item is not None}
    if is_list(value):
        entries: list[Json] = value
        return [_plain(item) for item in entries if not (is_object(item) and item.get("$patch") == "delete")]
    return copy_json(value)


def _merge_map(target: Json, patch: Object, schema: Schema | None) -> Object:
    base: Object = dict(target) if is_object(target) else {}
    directive = patch.get("$patch")
    if directive == "replace":
        plain: Object = _plain({name: item for name, item in patch.items() if name != "$patch"})
        return plain
    if directive == "delete":
        return {}
    retained = patch.get("$retainKeys")
    if retained is not None:
        base = {name: item for name, item in base.items() if name in retained}
    _delete_from_lists(base, patch)
    for name, item in patch.items():
        if name.startswith("$"):
            continue
        child = _child(schema, name)
        if item is None:
            base.pop(name, None)
        elif is_object(item):
            base[name] = _merge_map(base.get(name), item, child)
        elif is_list(item):
            base[name] = _merge_list(base.get(name), item, child, patch.get(_ORDER + name))
        else:
            base[name] = item
    for name, order in patch.items():
        listed = name.removeprefix(_ORDER)
        if name.startswith(_ORDER) and listed not in patch and is_list(base.get(listed)):
            base[listed] = _ordered(base[listed], base[listed], order, _child(schema, listed))
    return base


def _delete_from_lists(base: Object, patch: Object) -> None:
    for name, item in patch.items():
        if name.startswith(_DELETE):
            listed = name.removeprefix(_DELETE)
            entries: list[Json] = base.get(listed) or []
            base[listed] = [entry for entry in entries if entry not in item]


def _merge_list(target: Json, patch: list[Json], schema: Schema | None, order: Json) -> list[Json]:
    live: list[Json] = target if is_list(target) else []
    if schema is None or "merge" not in schema.merge_strategy.split(","):
        plain: list[Json] = _plain(patch)
        return plain
    if any(is_object(item) and item.get("$patch") == "replace" for item in patch):
        items: list[Json] = _plain([item for item in patch if item.get("$patch") != "replace"])
        return items
    if not schema.merge_key:
        merged = [*live, *(item for item in patch if item not in live)]
    else:
        merged = _merge_items(live, patch, schema)
    return _ordered(live, merged, order, schema) if order is not None else merged


def _merge_items(live: list[Json], patch: list[Json], schema: Schema) -> list[Json]:
    key = schema.merge_key
    merged: list[Json] = list(live)
    for item in patch:
        if not is_object(item) or key not in item:
            raise bad_request(f"map: {item} does not contain declared merge key: {key}")
        change: Object = item
        position = next((index for index, entry in enumerate(merged) if entry.get(key) == change[key]), None)
        if change.get("$patch") == "delete":
            merged = [entry for entry in merged if entry.get(key) != change[key]]
        elif position is None:
            merged.append(_merge_map({}, change, schema.items))
        else:
            merged[position] = _merge_map(merged[position], change, schema.items)
    return merged


def _ordered(live: list[Json], merged: list[Json], order: list[Json], schema: Schema | None) -> list[Json]:
    """Orders the items that the patch names as the patch does; others keep their place relative to the live list."""
    key = schema.merge_key if schema is not None else ""

    def identity(item: Json) -> Json:
        return item.get(key) if key and is_object(item) else item

    wanted = [identity(item) for item in order]
    before = [identity(item) for item in live]
    named = sorted((item for item in merged if identity(item) in wanted), key=lambda item: wanted.index(identity(item)))
    others = [item for item in merged if identity(item) not in wanted]
    result: list[Json] = []
    while named or others:
        if not others:
            result.append(named.pop(0))
        elif not named:
            result.append(others.pop(0))
        else:
            head, other = identity(named[0]), identity(others[0])
            first = head in before and before.index(head) < before.index(other)
            result.append(named.pop(0) if first else others.pop(0))
    return result
