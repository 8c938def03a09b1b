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

Place: TypeAlias = tuple[str, Key]
"""Location of an object: storage name and key."""


class Work:
    """A queue of places that is worked off in the event loop, each place once."""

    def __init__(self) -> None:
        self._queue: deque[Place] = deque()
        self._queued: set[Place] = set()
        self._scheduled = False

    def add(self, place: Place) -> bool:
        """Queues a place; returns whether the queue has to be scheduled."""
        if place in self._queued:
            return False
        self._queued.add(place)
        self._queue.append(place)
        scheduled, self._scheduled = self._scheduled, True
        return not scheduled

    def take(self) -> Place | None:
        """Returns the next place, or None when the queue is empty."""
        if not self._queue:
            self._scheduled = False
            return None
        place = self._queue.popleft()
        self._queued.discard(place)
        return place


class Collector:
    """Deletes objects whose owners do not exist, and finishes owners that wait for their dependents."""

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._dependents: dict[str, set[Place]] = {}
        self._living: dict[str, Place] = {}
        self._work = Work()
        state.store.listeners.append(self._changed)

    def _changed(self, storage: str, change: Change) -> None:
        place = (storage, change.stored.key)
        before = _owner_uids(change.previous)
        after = set[str]() if change.type == "DELETED" else _owner_uids(change.stored)
        for uid in before - after:
            self._dependents.get(uid, set()).discard(place)
        for uid in after - before:
            self._dependents.setdefault(uid, set()).add(place)
        if change.type == "DELETED":
            self._living.pop(change.stored.uid, None)
            for dependent in sorted(self._dependents.get(change.stored.uid, ())):
                self._queue(dependent)
            for uid in sorted(before):
                if uid in self._living:
                    self._queue(self._living[uid])
            return
        self._living[change.stored.uid] = place
        if after or _waits(change.stored, FOREGROUND) or _waits(change.stored, ORPHAN):
            self._queue(place)

    def _queue(self, place: Place) -> None:
        if self._work.add(place):
            asyncio.get_running_loop().call_soon(self._drain)

    def _drain(self) -> None:
        while (place := self._work.take()) is not None:
            self._process(place)

    def _process(self, place: Place) -> None:
        storage, key = place
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
        place = self._living.get(str(reference.get("uid")))
        return place is not None and place[1][0] in {"", dependent.key[0]}

    def _is_waiting(self, reference: Object) -> bool:
        place = self._living.get(str(reference.get("uid")))
        owner = None if place is None else self._state.store.get(*place)
        return owner is not None and _waits(owner, FOREGROUND)

    def _finish_foreground(self, resource: Resource, stored: Stored) -> None:
        """Finishes the foreground deletion of an owner that no dependent blocks."""
        places = sorted(self._dependents.get(stored.uid, ()))
        for place in places:
            self._queue(place)
        if not any(self._blocks(place, stored.uid) for place in places):
            self._remove_finalizer(resource, stored, FOREGROUND)

    def _blocks(self, place: Place, uid: str) -> bool:
        dependent = self._state.store.get(*place)
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
