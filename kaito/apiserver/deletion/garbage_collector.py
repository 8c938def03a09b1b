"""Owner garbage collection, which a cluster's `kube-controller-manager` does, inside the server.

Driven by the store's changes, never by polling: each change queues the objects it concerns, and the queue is worked off
in a callback of the event loop right after the request. Background, foreground and orphan deletion follow
`kubernetes/pkg/controller/garbagecollector`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TypeAlias

from kaito.apiserver.deletion.delete import FOREGROUND, ORPHAN, DeleteOptions, delete, finished
from kaito.apiserver.registry.resources import Resource
from kaito.apiserver.registry.server_state import ServerState
from kaito.apiserver.registry.store import Change, Key, Stored
from kaito.apiserver.wire import Object, copy_json

ObjectRef: TypeAlias = tuple[str, Key]
"""Location of an object: storage name and key."""


class PendingObjects:
    """Objects to process in the event loop, each once."""

    def __init__(self) -> None:
        self._queue: deque[ObjectRef] = deque()
        self._queued: set[ObjectRef] = set()
        self._scheduled = False

    def add(self, ref: ObjectRef) -> bool:
        """Queues an object; returns whether processing has to be scheduled."""
        if ref in self._queued:
            return False
        self._queued.add(ref)
        self._queue.append(ref)
        scheduled, self._scheduled = self._scheduled, True
        return not scheduled

    def take(self) -> ObjectRef | None:
        """Returns the next object, or None when the queue is empty."""
        if not self._queue:
            self._scheduled = False
            return None
        ref = self._queue.popleft()
        self._queued.discard(ref)
        return ref


class Collector:
    """Deletes objects whose owners do not exist, and finishes owners that wait for their dependents."""

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._dependents: dict[str, set[ObjectRef]] = {}
        self._living: dict[str, ObjectRef] = {}
        self._pending = PendingObjects()
        state.store.listeners.append(self._changed)

    def _changed(self, storage: str, change: Change) -> None:
        ref = (storage, change.stored.key)
        before = _owner_uids(change.previous)
        after = set[str]() if change.type == "DELETED" else _owner_uids(change.stored)
        for uid in before - after:
            self._dependents.get(uid, set()).discard(ref)
        for uid in after - before:
            self._dependents.setdefault(uid, set()).add(ref)
        if change.type == "DELETED":
            self._living.pop(change.stored.uid, None)
            for dependent in sorted(self._dependents.get(change.stored.uid, ())):
                self._queue(dependent)
            for uid in sorted(before):
                if uid in self._living:
                    self._queue(self._living[uid])
            return
        self._living[change.stored.uid] = ref
        if after or _waits(change.stored, FOREGROUND) or _waits(change.stored, ORPHAN):
            self._queue(ref)

    def _queue(self, ref: ObjectRef) -> None:
        if self._pending.add(ref):
            asyncio.get_running_loop().call_soon(self._drain)

    def _drain(self) -> None:
        while (ref := self._pending.take()) is not None:
            self._process(ref)

    def _process(self, ref: ObjectRef) -> None:
        storage, key = ref
        stored = self._state.store.get(storage, key)
        resource = self._resource(storage)
        if stored is None or resource is None:
            return
        if _waits(stored, ORPHAN):
            self._orphan(resource, stored)
        elif _waits(stored, FOREGROUND):
            self._finish_foreground(resource, stored)
        else:
            self._check_owners(resource, stored)

    def _resource(self, storage: str) -> Resource | None:
        return self._state.registry.stored_type(storage)

    def _check_owners(self, resource: Resource, stored: Stored) -> None:
        """Deletes an object none of whose owners exists; drops references to owners that do not exist."""
        references: list[Object] = stored.metadata.get("ownerReferences") or []
        if not references or stored.metadata.get("deletionTimestamp"):
            return
        absent = [item for item in references if not self._exists(item, stored)]
        waiting = [item for item in references if item not in absent and self._is_waiting(item)]
        if len(absent) + len(waiting) == len(references):
            has_dependents = bool(self._dependents.get(stored.uid))
            policy = "Foreground" if waiting and has_dependents else "Background"
            finalizers = stored.metadata.get("finalizers") or ()
            if FOREGROUND in finalizers:
                policy = "Foreground"
            elif ORPHAN in finalizers:
                policy = "Orphan"
            delete(self._state, resource, stored, DeleteOptions(uid=stored.uid, propagation=policy))
        elif absent:
            self._drop_references(resource, stored, {str(item.get("uid")) for item in absent})

    def _exists(self, reference: Object, dependent: Stored) -> bool:
        """Returns whether an owner exists, in the dependent's namespace or cluster-scoped."""
        ref = self._living.get(str(reference.get("uid")))
        return ref is not None and ref[1][0] in {"", dependent.key[0]}

    def _is_waiting(self, reference: Object) -> bool:
        ref = self._living.get(str(reference.get("uid")))
        owner = None if ref is None else self._state.store.get(*ref)
        return owner is not None and _waits(owner, FOREGROUND)

    def _finish_foreground(self, resource: Resource, stored: Stored) -> None:
        """Finishes the foreground deletion of an owner that no dependent blocks."""
        refs = sorted(self._dependents.get(stored.uid, ()))
        for ref in refs:
            self._queue(ref)
        if not any(self._blocks(ref, stored.uid) for ref in refs):
            self._remove_finalizer(resource, stored, FOREGROUND)

    def _blocks(self, ref: ObjectRef, uid: str) -> bool:
        dependent = self._state.store.get(*ref)
        references: list[Object] = [] if dependent is None else dependent.metadata.get("ownerReferences") or []
        return any(item.get("uid") == uid and item.get("blockOwnerDeletion") for item in references)

    def _orphan(self, resource: Resource, stored: Stored) -> None:
        for storage, key in sorted(self._dependents.get(stored.uid, ())):
            dependent, kind = self._state.store.get(storage, key), self._resource(storage)
            if dependent is not None and kind is not None:
                self._drop_references(kind, dependent, {stored.uid})
        self._remove_finalizer(resource, stored, ORPHAN)

    def _drop_references(self, resource: Resource, stored: Stored, uids: set[str]) -> None:
        data = copy_json(stored.data)
        remaining = [item for item in data["metadata"]["ownerReferences"] if str(item.get("uid")) not in uids]
        data["metadata"]["ownerReferences"] = remaining
        if not remaining:
            del data["metadata"]["ownerReferences"]
        self._state.store.replace(resource.storage, stored, data)

    def _remove_finalizer(self, resource: Resource, stored: Stored, name: str) -> None:
        remove_finalizer(self._state, resource, stored, name)


def _owner_uids(stored: Stored | None) -> set[str]:
    references: list[Object] = [] if stored is None else stored.metadata.get("ownerReferences") or []
    return {str(item.get("uid")) for item in references}


def _waits(stored: Stored, finalizer: str) -> bool:
    metadata = stored.metadata
    return bool(metadata.get("deletionTimestamp")) and finalizer in (metadata.get("finalizers") or ())


def remove_finalizer(state: ServerState, resource: Resource, stored: Stored, name: str) -> None:
    """Removes a finalizer, and the object with its last one."""
    data = copy_json(stored.data)
    remaining = [item for item in data["metadata"].get("finalizers") or () if item != name]
    data["metadata"]["finalizers"] = remaining
    if not remaining:
        del data["metadata"]["finalizers"]
    if finished(resource, data, stored):
        state.store.remove(resource.storage, stored, data)
    else:
        state.store.replace(resource.storage, stored, data)
