"""Compares and merges values along their schemas: the fields of a value, the difference of two, the merge of one into
another.

The semantics are those of `structured-merge-diff`: maps merge by key and lists of type map or set by item unless the
schema calls them atomic; without a schema maps merge and lists are atomic. Inputs are never mutated.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kaito.apiserver.patch import fieldset
from kaito.apiserver.patch.fieldset import FieldSet, Path
from kaito.apiserver.schema.structural import Schema
from kaito.apiserver.wire import Json, Object, is_list, is_nested, is_object

MISSING = object()
"""Marks an absent value where None would mean null."""


def _is_atomic_map(schema: Schema | None) -> bool:
    return schema is not None and (schema.map_type == "atomic" or schema.opaque)


def is_keyed(schema: Schema | None) -> bool:
    """Returns whether list items have an identity (list type map or set)."""
    return schema is not None and schema.list_type in {"map", "set"}


def item_element(item: Json, schema: Schema) -> str:
    """Returns the path element of an item of a keyed list."""
    if schema.list_type == "set" or not is_object(item):
        return fieldset.by_value(item)
    keys: Object = {}
    for name in schema.list_keys:
        child = schema.items.child(name) if schema.items is not None else None
        value = item.get(name)
        if value is None and child is not None and child.has_default:
            value = child.default
        keys[name] = value
    return fieldset.by_key(keys)


def _items_of(schema: Schema | None) -> Schema | None:
    return schema.items if schema is not None else None


def _child(schema: Schema | None, name: str) -> Schema | None:
    return schema.child(name) if schema is not None else None


def fields_of(value: Json, schema: Schema | None, path: Path = ()) -> set[Path]:
    """Returns the paths of everything a value sets."""
    if is_object(value) and not _is_atomic_map(schema):
        found: set[Path] = set()
        for name, item in value.items():
            here = (*path, fieldset.field(name))
            found |= fields_of(item, _child(schema, name), here)
            if item is None or item == {} or schema is None or not schema.declares(name):
                found.add(here)
        return found
    if is_list(value) and schema is not None and is_keyed(schema):
        found = set()
        entries: list[Json] = value
        for item in entries:
            here = (*path, item_element(item, schema))
            found |= fields_of(item, schema.items, here)
            found.add(here)
        return found
    return {path} if path else set()


@dataclass(slots=True)
class Difference:
    """Paths that a new value adds, changes and removes against an old one."""

    added: set[Path] = field(default_factory=set[Path])
    changed: set[Path] = field(default_factory=set[Path])
    removed: set[Path] = field(default_factory=set[Path])


def compare(old: Json, new: Json, schema: Schema | None) -> Difference:
    """Returns how a new value differs from an old one."""
    difference = Difference()
    _compare(old, new, schema, (), difference)
    return difference


def _compare(old: Json, new: Json, schema: Schema | None, path: Path, out: Difference) -> None:
    if old is new or (old == new and type(old) is type(new)):
        return
    descended = False
    if _granular_map(old, new, schema):
        descended = True
        olds, news = _as_map(old), _as_map(new)
        for name in dict.fromkeys([*olds, *news]):
            here = (*path, fieldset.field(name))
            _compare(olds.get(name, MISSING), news.get(name, MISSING), _child(schema, name), here, out)
    elif schema is not None and _granular_list(old, new, schema):
        descended = True
        olds, news = _indexed(old, schema), _indexed(new, schema)
        for element in dict.fromkeys([*olds, *news]):
            before, after = olds.get(element, MISSING), news.get(element, MISSING)
            _compare(before, after, schema.items, (*path, element), out)
    if not path:
        return
    if old is MISSING:
        out.added.add(path)
    elif new is MISSING:
        out.removed.add(path)
    elif not descended:
        out.changed.add(path)


def _as_map(value: Json) -> Object:
    return value if is_object(value) else {}


def _granular_map(old: Json, new: Json, schema: Schema | None) -> bool:
    if _is_atomic_map(schema) or not any(is_object(value) and value for value in (old, new)):
        return False
    return all(is_object(value) or value is MISSING or value is None for value in (old, new))


def _granular_list(old: Json, new: Json, schema: Schema) -> bool:
    if not is_keyed(schema) or not any(is_list(value) and value for value in (old, new)):
        return False
    return all(is_list(value) or value is MISSING or value is None for value in (old, new))


def _indexed(value: Json, schema: Schema) -> Object:
    entries: list[Json] = value if is_list(value) else []
    return {item_element(item, schema): item for item in entries}


def merge(live: Json, config: Json, schema: Schema | None) -> Json:
    """Returns the live value with a configuration merged in; its keyed lists name no item twice."""
    if config is MISSING:
        return live
    if live is MISSING:
        live = None
    if _granular_map(live, config, schema):
        lives, configs = _as_map(live), _as_map(config)
        merged: Object = {}
        for name in dict.fromkeys([*lives, *configs]):
            merged[name] = merge(lives.get(name, MISSING), configs.get(name, MISSING), _child(schema, name))
        return merged
    if schema is not None and _granular_list(live, config, schema):
        return _merge_lists(live or [], config or [], schema)
    return config


def _merge_lists(live: list[Json], config: list[Json], schema: Schema) -> list[Json]:
    """Merges keyed lists: items keep the live order, except that shared ones follow the configuration's order."""
    lives = [item_element(item, schema) for item in live]
    configs = [item_element(item, schema) for item in config]
    known, wanted = _indexed(live, schema), dict(zip(configs, config, strict=True))
    shared = [element for element in configs if element in known]
    merged: list[Json] = []
    done: set[str] = set()

    def take(element: str, live_item: Json) -> None:
        merged.append(merge(live_item, wanted.get(element, MISSING), schema.items))

    left = right = 0
    while left < len(lives) or right < len(configs):
        if left < len(lives) and right < len(configs):
            element = lives[left]
            if element == configs[right]:
                done.add(element)
                take(element, known[element])
                left, right = left + 1, right + 1
                shared = shared[1:]
                continue
            if element in wanted and shared and shared[0] != element:
                left += 1
                continue
        if left < len(lives):
            element = lives[left]
            if element not in wanted:
                take(element, live[left])
                left += 1
                continue
            if element in done:
                left += 1
        if right < len(configs):
            element = configs[right]
            done.add(element)
            take(element, known.get(element, MISSING))
            right += 1
            if shared and shared[0] == element:
                shared = shared[1:]
    return merged


def repeated_items(value: Json, schema: Schema | None, path: str = "") -> list[tuple[str, str]]:
    """Returns path and key of items that a keyed list names more than once."""
    found: list[tuple[str, str]] = []
    if is_object(value):
        for name, item in value.items():
            if is_nested(item):
                found += repeated_items(item, _child(schema, name), f"{path}.{name}")
    elif is_list(value) and schema is not None and is_keyed(schema):
        entries: list[Json] = value
        elements = [item_element(item, schema) for item in entries]
        found += [(path, fieldset.show((one,))) for one in dict.fromkeys(elements) if elements.count(one) > 1]
        for element, item in zip(elements, entries, strict=True):
            found += repeated_items(item, schema.items, path + fieldset.show((element,)))
    return found


def remove(value: Json, paths: FieldSet, schema: Schema | None) -> Json:
    """Returns a value without the members of a set; None when nothing is left of a map or list."""
    if not paths:
        return value
    if is_object(value) and value:
        if _is_atomic_map(schema):
            return None
        kept: Object = {}
        for name, item in value.items():
            element = fieldset.field(name)
            if (element,) in paths:
                continue
            below = fieldset.under(paths, element)
            kept[name] = remove(item, below, _child(schema, name)) if below else item
        return kept or None
    if is_list(value) and value:
        if schema is None or not is_keyed(schema):
            return None
        rest: list[Json] = []
        entries: list[Json] = value
        for item in entries:
            element = item_element(item, schema)
            if (element,) in paths:
                continue
            below = fieldset.under(paths, element)
            rest.append(remove(item, below, schema.items) if below else item)
        return rest or None
    return value


def with_named_parents(paths: FieldSet, schema: Schema | None) -> FieldSet:
    """Returns the set with every declared field on the way to a member as a member itself."""
    found = set(paths)
    for path in paths:
        node = schema
        for depth, element in enumerate(path[:-1], start=1):
            if element.startswith("f:"):
                name = element[2:]
                if node is not None and node.declares(name):
                    found.add(path[:depth])
                node = _child(node, name)
            else:
                node = _items_of(node)
    return frozenset(found)
