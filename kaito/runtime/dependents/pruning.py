"""Decides which objects are dependents that may be deleted because they are no longer declared.

All of this has to hold, and the last two points are checked on the server, not in the cache:

* the object's controller (owner reference) is the owner, by UID;
* it has the label of the set, and is not being deleted;
* the label belongs to the field manager that applies the set. A copy of a dependent that someone else created, with all
  its labels and owner references, is therefore not one;
* it is unchanged since that check (the deletion has its resourceVersion as precondition).
"""

from collections.abc import Collection, Mapping
from typing import Any, Final, cast

from kaito.runtime.client import Api
from kaito.runtime.client.write_context import current_write_context, field_manager_of
from kaito.runtime.meta import ObjectKey, Resource
from kaito.runtime.ownership import controller_of

DEPENDENTS_LABEL: Final = "runtime.kaito.dev/dependents"
"""Label of every dependent; its value is the name of the set."""


def field_managers(api: Api, former: Collection[str]) -> frozenset[str]:
    """Returns the field managers that apply dependents: the controller's, that of its manager, and former ones."""
    own = api.client.field_manager
    run = current_write_context()
    return frozenset({own, *former} | ({field_manager_of(own, run.controller)} if run is not None else set()))


def is_dependent(obj: Resource, owner: Resource, name: str) -> bool:
    """Whether the object has the label of the set, and the owner as its controller."""
    controller = controller_of(obj.metadata)
    return (
        controller is not None
        and bool(owner.uid)
        and controller.uid == owner.uid
        and obj.labels.get(DEPENDENTS_LABEL) == name
    )


async def undeclared(
    api: Api, kind: type[Resource], owner: Resource, name: str, declared: Collection[ObjectKey]
) -> list[Resource]:
    """Lists the cached dependents of a kind that are not declared. Objects that do not fit the model are left out."""
    namespace = owner.namespace if kind.namespaced else ""
    found = await api.list(kind, namespace=namespace, owned_by=owner, unreadable="skip")
    return [obj for obj in found if is_dependent(obj, owner, name) and not obj.deleting and obj.key not in declared]


async def confirmed(
    api: Api, candidate: Resource, owner: Resource, name: str, managers: Collection[str]
) -> Resource | None:
    """Reads a candidate from the server; None if it does not exist, or is not a dependent of the set.

    One that is being deleted is returned, too.
    """
    live = await api.client.find(type(candidate), candidate.name, candidate.namespace)
    if live is None or live.uid != candidate.uid or not is_dependent(live, owner, name):
        return None
    return live if _label_is_applied(live, managers) else None


def _label_is_applied(live: Resource, managers: Collection[str]) -> bool:
    """Whether one of the field managers has applied the label."""
    entries = cast("list[Mapping[str, Any]]", (live.metadata.model_extra or {}).get("managedFields") or [])
    return any(
        entry.get("manager") in managers
        and entry.get("operation") == "Apply"
        and f"f:{DEPENDENTS_LABEL}" in _at(entry, "fieldsV1", "f:metadata", "f:labels")
        for entry in entries
    )


def _at(document: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    for name in path:
        document = document.get(name) or {}
    return document
