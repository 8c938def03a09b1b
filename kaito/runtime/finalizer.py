"""Finalizers: the promise that clean-up runs before an object disappears.

The controller calls `add_finalizer` before the first body of an object, so that no side effect precedes it, and
`remove_finalizer` after the clean-up. Both touch nothing but the finalizer list, and neither can take away or bring
back somebody else's entry.
"""

from typing import TypeVar

from kaito.runtime.client.api import Api
from kaito.runtime.client.patch import JsonPatch, MergePatch, pointer
from kaito.runtime.errors import ApiError, Conflict, Invalid, NotFound, api_error
from kaito.runtime.meta import Resource

R = TypeVar("R", bound=Resource)

ATTEMPTS = 5
"""Tries while others keep changing the list (client-go's retry preset)."""


def has_finalizer(obj: Resource, finalizer: str) -> bool:
    """Whether the object waits for this finalizer when deleted."""
    return finalizer in obj.metadata.finalizers


async def add_finalizer(api: Api, obj: R, finalizer: str) -> R:
    """The object with the finalizer stored; no request when it has it.

    Raises:
        NotFound: the object is gone.
        Invalid: it is being deleted, and takes no new finalizers.
        Conflict: others keep changing it.
    """
    for attempt in range(1, ATTEMPTS + 1):
        if has_finalizer(obj, finalizer):
            return obj
        document = {
            "metadata": {
                "resourceVersion": obj.metadata.resource_version,  # the list is replaced whole: it must be current
                "finalizers": [*obj.metadata.finalizers, finalizer],
            }
        }
        try:
            return await api.patch(obj, MergePatch(document))
        except Conflict:
            if attempt == ATTEMPTS:
                raise
            newer = await _now(api, obj)
            if newer is None:
                raise _gone(obj) from None
            obj = newer
    raise AssertionError  # pragma: no cover -- the last attempt returns or raises


async def remove_finalizer(api: Api, obj: Resource, finalizer: str) -> None:
    """Take the finalizer out, every occurrence; done when it, or the object, is gone already.

    Raises:
        Invalid: others keep changing the list.
        NotFound: the server does not serve the kind.
    """
    present = obj
    for attempt in range(1, ATTEMPTS + 1):
        places = [place for place, name in enumerate(present.metadata.finalizers) if name == finalizer]
        if not places:
            return
        try:
            await api.patch(present, _removal(places, finalizer))
        except NotFound as error:
            if not error.is_object:  # the kind is not served: whether the object is gone cannot be known
                raise
            return
        except (Conflict, Invalid):
            if attempt == ATTEMPTS:
                raise
        else:
            return
        newer = await _now(api, obj)
        if newer is None:
            return
        present = newer


def _gone(obj: Resource) -> ApiError:
    details = {"name": obj.name, "group": obj.group(), "kind": obj.plural}
    return api_error(404, {"message": f"{obj.kind} {obj.key} is gone", "reason": "NotFound", "details": details})


def _removal(places: list[int], finalizer: str) -> JsonPatch:
    """From the back, so that the places in front stay where they are; `test` makes sure that they are."""
    operations: list[dict[str, str]] = []
    for place in reversed(places):
        path = pointer("metadata", "finalizers", place)
        operations += [{"op": "test", "path": path, "value": finalizer}, {"op": "remove", "path": path}]
    return JsonPatch(operations)


async def _now(api: Api, obj: R) -> R | None:
    """The same object as the server has it, or None when it is gone."""
    newer = await api.client.find(type(obj), obj.name, obj.namespace)
    return newer if newer is not None and newer.uid == obj.uid else None
