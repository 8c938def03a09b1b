"""Deletes namespaces and CustomResourceDefinitions with their contents, and protects volumes in use.

A namespace or definition that is deleted is marked first; its contents are deleted, and it is removed after the last
object. Driven by the store's changes, as `garbage_collector` is. In a real cluster the namespace controller and the CRD
finalizer do this.
"""

from __future__ import annotations

import asyncio

from kaito.apiserver.apiextensions.definitions import STORAGE as DEFINITIONS
from kaito.apiserver.deletion.delete import CRD_FINALIZER, DeleteOptions, delete
from kaito.apiserver.deletion.garbage_collector import PendingObjects, remove_finalizer
from kaito.apiserver.registry.resources import Resource
from kaito.apiserver.registry.server_state import ServerState
from kaito.apiserver.registry.store import Change, Stored
from kaito.apiserver.wire import Object, copy_json, part

NAMESPACES = "namespaces"
CLAIMS, VOLUMES = "persistentvolumeclaims", "persistentvolumes"
HOLDERS = frozenset({NAMESPACES, DEFINITIONS, CLAIMS, VOLUMES})
PROTECTION = {CLAIMS: "kubernetes.io/pvc-protection", VOLUMES: "kubernetes.io/pv-protection"}
"""Finalizers set at admission that a real cluster's protection controllers remove."""


class Cleanup:
    """Empties terminating namespaces and definitions, and removes them when they are empty."""

    def __init__(self, state: ServerState, *, controllers: bool) -> None:
        self._state = state
        self._controllers = controllers
        self._pending = PendingObjects()
        state.store.listeners.append(self._changed)

    def _changed(self, storage: str, change: Change) -> None:
        if change.type == "DELETED":
            self._after_deletion(storage, change.stored)
        elif change.stored.metadata.get("deletionTimestamp") and storage in HOLDERS:
            self._queue(storage, change.stored.key)

    def _after_deletion(self, storage: str, stored: Stored) -> None:
        namespace = stored.key[0]
        if namespace and self._is_terminating(NAMESPACES, namespace):
            self._queue(NAMESPACES, ("", namespace))
        if storage == "pods":
            for claim in _claims(stored):
                if self._is_terminating(CLAIMS, claim, namespace):
                    self._queue(CLAIMS, (namespace, claim))
        if "." in storage and self._is_terminating(DEFINITIONS, storage):
            self._queue(DEFINITIONS, ("", storage))

    def _is_terminating(self, storage: str, name: str, namespace: str = "") -> bool:
        holder = self._state.store.get(storage, (namespace, name))
        return holder is not None and bool(holder.metadata.get("deletionTimestamp"))

    def _queue(self, storage: str, key: tuple[str, str]) -> None:
        if storage != DEFINITIONS and not self._controllers:
            return
        if self._pending.add((storage, key)):
            asyncio.get_running_loop().call_soon(self._drain)

    def _drain(self) -> None:
        while (ref := self._pending.take()) is not None:
            storage, key = ref
            stored = self._state.store.get(storage, key)
            if stored is None or not stored.metadata.get("deletionTimestamp"):
                continue
            if storage in PROTECTION:
                self._remove_protection(storage, stored)
            elif storage == NAMESPACES:
                self._empty_namespace(stored)
            else:
                self._empty_definition(stored)

    def _empty_namespace(self, namespace: Stored) -> None:
        name = namespace.key[1]
        resources = [found for found in self._state.registry.stored_types() if found.namespaced]
        remaining = sum(self._delete_all(resource, name) for resource in resources)
        current = self._state.store.get(NAMESPACES, namespace.key)
        if remaining or current is None:
            return
        data = copy_json(current.data)
        data["spec"]["finalizers"] = [item for item in data["spec"].get("finalizers") or () if item != "kubernetes"]
        if not data["spec"]["finalizers"]:
            del data["spec"]["finalizers"]
        if data["metadata"].get("finalizers") or data["spec"].get("finalizers"):
            if data != current.data:
                self._state.store.replace(NAMESPACES, current, data)
        else:
            self._state.store.remove(NAMESPACES, current, data)

    def _remove_protection(self, storage: str, stored: Stored) -> None:
        """Removes the protection finalizer of a volume or claim that no pod uses."""
        namespace, name = stored.key
        pods = self._state.store.watch_cache("pods").objects.values() if storage == CLAIMS else ()
        if any(pod.key[0] == namespace and name in _claims(pod) for pod in pods):
            return
        resource = self._state.registry.stored_type(storage)
        if resource is not None and PROTECTION[storage] in (stored.metadata.get("finalizers") or ()):
            remove_finalizer(self._state, resource, stored, PROTECTION[storage])

    def _empty_definition(self, definition: Stored) -> None:
        spec: Object = definition.data["spec"]
        storage = f"{spec['names']['plural']}.{spec['group']}"
        resource = self._state.registry.stored_type(storage)
        remaining = 0 if resource is None else self._delete_all(resource, None)
        current = self._state.store.get(DEFINITIONS, definition.key)
        holder = self._state.registry.find("apiextensions.k8s.io", "v1", "customresourcedefinitions")
        if remaining or current is None or holder is None:
            return
        if CRD_FINALIZER in (current.metadata.get("finalizers") or ()):
            remove_finalizer(self._state, holder, current, CRD_FINALIZER)

    def _delete_all(self, resource: Resource, namespace: str | None) -> int:
        """Deletes the objects of a type; returns how many remain because of finalizers or grace periods."""
        watch_cache = self._state.store.watch_cache(resource.storage)
        keys = [key for key in sorted(watch_cache.objects) if namespace is None or key[0] == namespace]
        for key in keys:
            stored = watch_cache.objects.get(key)
            if stored is not None and not stored.metadata.get("deletionTimestamp"):
                delete(self._state, resource, stored, DeleteOptions(propagation="Background"))
        return sum(key in watch_cache.objects for key in keys)


def _claims(pod: Stored) -> list[str]:
    volumes: list[Object] = part(pod.data, "spec").get("volumes") or []
    return [str(part(volume, "persistentVolumeClaim").get("claimName", "")) for volume in volumes]
