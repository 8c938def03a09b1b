"""Adds and removes finalizers, so that the cleanup of an object runs before its deletion.

A webhook with `finalizer=` adds the finalizer when an object is created. For other objects the controller calls
`add_finalizer` before the first reconcile, so that no side effect precedes it, and `remove_finalizer` after the
cleanup. Both change only the list of finalizers, and neither removes or restores an entry of another controller.
"""

import re
from typing import TypeVar

from kaito.runtime.client.api import Api
from kaito.runtime.client.patch import JsonPatch, pointer
from kaito.runtime.errors import ApiError, Conflict, Invalid, NotFound, api_error
from kaito.runtime.meta import Resource

R = TypeVar("R", bound=Resource)

ATTEMPTS = 5
"""Attempts while the object changes concurrently (client-go's `DefaultRetry`)."""


_NAME = re.compile(r"([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)/([A-Za-z0-9][-A-Za-z0-9_.]*)")


def is_finalizer_name(name: str) -> bool:
    """Whether the API server accepts a finalizer with this name (`domain/name`)."""
    return _NAME.fullmatch(name) is not None


def has_finalizer(obj: Resource, finalizer: str) -> bool:
    """Whether the object has this finalizer."""
    return finalizer in obj.metadata.finalizers


async def add_finalizer(api: Api, obj: R, finalizer: str) -> R:
    """Adds the finalizer and returns the object; sends no request if the object has it.

    Other changes of the object, such as those of its status, cause no conflict: the request depends on the list of
    finalizers alone.

    Raises:
        NotFound: the object does not exist.
        Invalid: the object is being deleted; new finalizers are rejected. Or the list changed concurrently at every
            attempt.
        Conflict: the server could not store the change at every attempt.
    """
    for attempt in range(1, ATTEMPTS + 1):
        if has_finalizer(obj, finalizer):
            return obj
        try:
            return await api.patch(obj, _addition(obj, finalizer))
        except (Conflict, Invalid) as error:
            if attempt == ATTEMPTS:
                raise
            newer = await _read_live(api, obj)
            if newer is None:
                raise _not_found(obj) from None
            if isinstance(error, Invalid) and newer.metadata.finalizers == obj.metadata.finalizers:
                raise  # the list is the one that the patch expected: the object itself is rejected
            obj = newer
    raise AssertionError  # pragma: no cover -- the last attempt returns or raises


async def remove_finalizer(api: Api, obj: Resource, finalizer: str) -> None:
    """Removes every occurrence of the finalizer, if the object exists and has it.

    Raises:
        Invalid: the list changed concurrently at every attempt.
        NotFound: the API server does not serve the kind.
    """
    present = obj
    for attempt in range(1, ATTEMPTS + 1):
        indexes = [index for index, name in enumerate(present.metadata.finalizers) if name == finalizer]
        if not indexes:
            return
        try:
            await api.patch(present, _removal(indexes, finalizer))
        except NotFound as error:
            if not error.is_object:  # the kind is not served, so the object may still exist
                raise
            return
        except (Conflict, Invalid):
            if attempt == ATTEMPTS:
                raise
        else:
            return
        newer = await _read_live(api, obj)
        if newer is None:
            return
        present = newer


def _not_found(obj: Resource) -> ApiError:
    details = {"name": obj.name, "group": obj.group(), "kind": obj.plural}
    return api_error(404, {"message": f"{obj.kind} {obj.key} does not exist", "reason": "NotFound", "details": details})


def _addition(obj: Resource, finalizer: str) -> JsonPatch:
    """Adds the entry, if the object is still the same one and its list is unchanged; `test` checks both.

    A missing field equals null in a `test` of the API server.
    """
    present, path = obj.metadata.finalizers, pointer("metadata", "finalizers")
    return JsonPatch(
        [
            {"op": "test", "path": pointer("metadata", "uid"), "value": obj.uid},
            {"op": "test", "path": path, "value": present or None},
            {"op": "add", "path": f"{path}/-" if present else path, "value": finalizer if present else [finalizer]},
        ]
    )


def _removal(indexes: list[int], finalizer: str) -> JsonPatch:
    """Removes the entries from the last to the first, so that the other indexes stay valid; `test` checks each."""
    operations: list[dict[str, str]] = []
    for index in reversed(indexes):
        path = pointer("metadata", "finalizers", index)
        operations += [{"op": "test", "path": path, "value": finalizer}, {"op": "remove", "path": path}]
    return JsonPatch(operations)


async def _read_live(api: Api, obj: R) -> R | None:
    """Reads the object live; None if it does not exist, or if another object has its name."""
    newer = await api.client.find(type(obj), obj.name, obj.namespace)
    return newer if newer is not None and newer.uid == obj.uid else None
