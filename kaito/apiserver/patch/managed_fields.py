"""Field ownership (`metadata.managedFields`) and the merge of server-side apply.

`record_write` records a create, update or patch; `plan_apply` computes the object that results from an apply and
its new owners, or raises the conflicts. The algorithm is `structured-merge-diff/merge.Updater`; the managers
"before-first-apply" and "ancient-changes" follow `apimachinery/pkg/util/managedfields`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from kaito.apiserver import errors
from kaito.apiserver.patch import fieldset
from kaito.apiserver.patch.fieldset import EMPTY, FieldSet, Path
from kaito.apiserver.patch.typed import compare, fields_of, merge, remove, with_named_parents
from kaito.apiserver.registry.resources import Resource
from kaito.apiserver.registry.server_state import Context, ServerState
from kaito.apiserver.schema.structural import Schema, zero_value
from kaito.apiserver.wire import Object, encode, part

STRIPPED: FieldSet = frozenset(
    {
        ("f:apiVersion",),
        ("f:kind",),
        ("f:metadata",),
        *(
            ("f:metadata", f"f:{name}")
            for name in (
                "name",
                "namespace",
                "creationTimestamp",
                "selfLink",
                "uid",
                "clusterName",
                "generation",
                "managedFields",
                "resourceVersion",
            )
        ),
    }
)
"""Fields that are never owned (`stripmeta.go`)."""
MAX_UPDATE_MANAGERS = 10
"""Older update managers beyond this are merged into "ancient-changes"."""


@dataclass(frozen=True, slots=True)
class ManagerKey:
    """Identity of an entry of `managedFields`."""

    manager: str
    operation: str
    api_version: str
    subresource: str = ""

    def order(self) -> str:
        """Returns the text that managers are sorted by: their entry as JSON."""
        parts: Object = {"manager": self.manager, "operation": self.operation}
        if self.operation == "Update":
            parts["apiVersion"] = self.api_version
        if self.subresource:
            parts["subresource"] = self.subresource
        return encode(parts).decode()

    def show(self) -> str:
        """Returns the manager as conflict messages name it."""
        text = errors.quote(self.manager)
        if self.subresource:
            text += f" with subresource {errors.quote(self.subresource)}"
        if self.operation == "Update":
            text += f" using {self.api_version}"
        return text


Managers: TypeAlias = dict[ManagerKey, FieldSet]


@dataclass(slots=True)
class Ownership:
    """The decoded `managedFields` of one object."""

    sets: Managers
    times: dict[ManagerKey, str]
    trees: dict[ManagerKey, Object] = field(default_factory=dict[ManagerKey, Object])
    """The FieldsV1 form of the sets, as decoded."""


def decode_ownership(metadata: Object) -> Ownership:
    """Reads the owners of an object's fields."""
    found = Ownership({}, {})
    entries: list[Object] = metadata.get("managedFields") or []
    for entry in entries:
        key = ManagerKey(
            str(entry.get("manager", "")),
            str(entry.get("operation", "")),
            str(entry.get("apiVersion", "")),
            str(entry.get("subresource", "")),
        )
        found.trees[key] = part(entry, "fieldsV1")
        found.sets[key] = fieldset.from_fields(found.trees[key])
        found.times[key] = str(entry.get("time", ""))
    return found


def encode_ownership(ownership: Ownership, before: Ownership, now: str) -> list[Object]:
    """Returns the `managedFields` list: appliers first, then by time; a manager whose set changed gets a new time."""
    entries: list[Object] = []
    for key, paths in ownership.sets.items():
        unchanged = before.sets.get(key) == paths
        time = before.times.get(key) if unchanged else now
        entry: Object = {"manager": key.manager, "operation": key.operation, "apiVersion": key.api_version}
        if time:
            entry["time"] = time
        entry["fieldsType"] = "FieldsV1"
        entry["fieldsV1"] = before.trees[key] if unchanged else fieldset.to_fields(paths)
        if key.subresource:
            entry["subresource"] = key.subresource
        entries.append(entry)

    def order(entry: Object) -> tuple[int, str, str, str, str]:
        return (
            entry["operation"] != "Apply",
            str(entry.get("time", "")),
            entry["manager"],
            entry["apiVersion"],
            str(entry.get("subresource", "")),
        )

    return sorted(entries, key=order)


def _tracked_fields(resource: Resource, subresource: str) -> Callable[[Path], bool]:
    """Returns which paths an endpoint may own: status through its own endpoint only, and nothing else there."""
    if subresource == "status":
        return lambda path: path[0] in {"f:status", "f:metadata"}
    if resource.has_status():
        return lambda path: path[0] != "f:status"
    return lambda _path: True


def record_write(
    state: ServerState, resource: Resource, data: Object, old: Object | None, context: Context, subresource: str
) -> None:
    """Records which fields a create, update or patch wrote, in place."""
    metadata: Object = data["metadata"]
    sent = metadata.get("managedFields")
    before = decode_ownership(old["metadata"]) if old is not None else Ownership({}, {})
    if old is not None and (sent == [] or sent == [{}]):
        metadata.pop("managedFields", None)
        return
    if old is not None and not before.sets and not sent:
        return  # ownership of an object without managed fields is tracked from its first apply on
    if old is not None and same_content(data, old) and sent == old["metadata"].get("managedFields"):
        return
    is_same = not sent or (old is not None and sent == old["metadata"].get("managedFields"))
    current = Ownership(dict(before.sets), dict(before.times)) if is_same else decode_ownership(metadata)
    if subresource in {"binding", "finalize"}:
        return
    schema = resource.ownership_schema
    key = ManagerKey(context.manager, "Update", resource.api_version, subresource)
    is_tracked = _tracked_fields(resource, subresource)
    plain_old = _without_managed(old) if old is not None else _empty_like(data, resource)
    difference = compare(plain_old, _without_managed(data), schema)
    touched = _filtered(frozenset(difference.added | difference.changed), is_tracked)
    removed = _filtered(frozenset(difference.removed), is_tracked)
    for other, paths in list(current.sets.items()):
        if other != key:
            current.sets[other] = paths - touched - removed
    own = (current.sets.get(key, EMPTY) - removed) | touched
    current.sets[key] = _filtered(own, is_tracked) - STRIPPED
    _drop_empty(current.sets)
    _cap_updates(current)
    metadata["managedFields"] = encode_ownership(current, before, state.timestamp())
    if not metadata["managedFields"]:
        del metadata["managedFields"]


def _filtered(paths: FieldSet, is_tracked: Callable[[Path], bool]) -> FieldSet:
    return frozenset(path for path in paths if is_tracked(path))


def _drop_empty(sets: Managers) -> None:
    for key in [key for key, paths in sets.items() if not paths]:
        del sets[key]


def _cap_updates(ownership: Ownership) -> None:
    updates = [key for key in ownership.sets if key.operation == "Update"]
    if len(updates) <= MAX_UPDATE_MANAGERS:
        return
    updates.sort(key=lambda key: (ownership.times.get(key, "9"), key.manager))
    for oldest in updates[: len(updates) - MAX_UPDATE_MANAGERS + 1]:
        bucket = ManagerKey("ancient-changes", "Update", oldest.api_version)
        moved = ownership.sets.pop(oldest)
        ownership.sets[bucket] = ownership.sets.get(bucket, EMPTY) | moved


def same_content(data: Object, old: Object) -> bool:
    """Returns whether two states differ at most in bookkeeping metadata."""
    ignored = {"managedFields", "resourceVersion", "generation"}
    first = {key: value for key, value in data["metadata"].items() if key not in ignored}
    second = {key: value for key, value in old["metadata"].items() if key not in ignored}
    return first == second and {**data, "metadata": None} == {**old, "metadata": None}


def _without_managed(data: Object) -> Object:
    metadata = {key: value for key, value in data["metadata"].items() if key != "managedFields"}
    return {**data, "metadata": metadata}


def _empty_like(data: Object, resource: Resource) -> Object:
    schema = resource.ownership_schema
    zero: Object = {} if resource.custom or schema is None else zero_value(schema)
    nulls: Object = {name: None for name, value in data.items() if value is None}
    return {**zero, **nulls, "apiVersion": data["apiVersion"], "kind": data["kind"], "metadata": {}}


@dataclass(slots=True)
class Applied:
    """The result of an apply before defaulting and validation."""

    data: Object
    managed: list[Object]


def plan_apply(
    state: ServerState,
    resource: Resource,
    live: Object | None,
    config: Object,
    context: Context,
    *,
    subresource: str = "",
    force: bool = False,
) -> Applied:
    """Returns the merged object and its owners.

    Raises:
        StatusError: 409 when fields belong to others and `force` is not given.
    """
    schema = resource.ownership_schema
    before = decode_ownership(live["metadata"]) if live is not None else Ownership({}, {})
    current = Ownership(dict(before.sets), dict(before.times))
    bare: Object = {"apiVersion": config["apiVersion"], "kind": config["kind"], "metadata": {}}
    base = bare if live is None else _without_managed(live)
    if live is not None and not before.sets:
        _assign_before_first_apply(current, resource, base, schema)
    key = ManagerKey(context.manager, "Apply", resource.api_version, subresource)
    last_applied = EMPTY
    for other in [other for other in current.sets if _same_applier(other, key)]:
        last_applied = current.sets.pop(other)
    is_tracked = _tracked_fields(resource, subresource)
    merged: Object = merge(base, config, schema)
    current.sets[key] = _filtered(frozenset(fields_of(config, schema)), is_tracked)
    merged = _prune(merged, current.sets, last_applied, schema)
    _resolve_conflicts(current, key, base, merged, schema, is_tracked, force=force)
    current.sets[key] -= STRIPPED
    _drop_empty(current.sets)
    return Applied(merged, encode_ownership(current, before, state.timestamp()))


def _same_applier(other: ManagerKey, key: ManagerKey) -> bool:
    return (other.manager, other.operation, other.subresource) == (key.manager, "Apply", key.subresource)


def _assign_before_first_apply(current: Ownership, resource: Resource, base: Object, schema: Schema | None) -> None:
    """Assigns the fields of an object without managed fields to "before-first-apply"."""
    key = ManagerKey("before-first-apply", "Update", resource.api_version)
    paths = frozenset(fields_of(base, schema)) - STRIPPED
    if paths:
        current.sets[key] = paths


def _prune(merged: Object, sets: Managers, last_applied: FieldSet, schema: Schema | None) -> Object:
    """Removes the fields that this manager applied before, does not apply now, and no other manager owns."""
    if not last_applied:
        return merged
    named_applied = with_named_parents(last_applied, schema)
    pruned: Object = remove(merged, named_applied, schema) or {}
    owned: FieldSet = EMPTY.union(*sets.values())
    everything = with_named_parents(frozenset(fields_of(merged, schema)), schema)
    left = with_named_parents(frozenset(fields_of(pruned, schema)), schema)
    pruned = remove(merged, everything - (left | with_named_parents(owned, schema)), schema) or {}
    left = with_named_parents(frozenset(fields_of(pruned, schema)), schema)
    return remove(merged, (everything - left) & named_applied, schema) or {}


def _resolve_conflicts(
    current: Ownership,
    key: ManagerKey,
    base: Object,
    merged: Object,
    schema: Schema | None,
    is_tracked: Callable[[Path], bool],
    *,
    force: bool,
) -> None:
    difference = compare(base, merged, schema)
    touched = _filtered(frozenset(difference.added | difference.changed), is_tracked)
    removed = _filtered(frozenset(difference.removed), is_tracked)
    conflicts: Managers = {}
    for other, paths in current.sets.items():
        if other != key and paths & touched:
            conflicts[other] = paths & touched
    if conflicts and not force:
        raise _conflict_error(conflicts)
    for other, paths in list(current.sets.items()):
        if other != key:
            current.sets[other] = paths - conflicts.get(other, EMPTY) - removed


def _conflict_error(conflicts: Managers) -> errors.StatusError:
    causes: list[Object] = []
    named: dict[str, list[str]] = {}
    for key in sorted(conflicts, key=ManagerKey.order):
        manager = key.show()
        for path in fieldset.in_order(conflicts[key]):
            where = fieldset.show(path)
            causes.append({"reason": "FieldManagerConflict", "message": f"conflict with {manager}", "field": where})
            named.setdefault(manager, []).append(where)
    if len(causes) == 1:
        message = f"Apply failed with 1 conflict: {causes[0]['message']}: {causes[0]['field']}"
    else:
        lines: list[str] = []
        for manager, paths in named.items():
            lines.append(f"conflicts with {manager}:")
            lines += [f"- {where}" for where in paths]
        message = f"Apply failed with {len(causes)} conflicts: " + "\n".join(lines)
    return errors.apply_conflict(causes, message)
