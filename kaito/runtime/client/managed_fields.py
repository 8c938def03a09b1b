"""Field managers under which former versions applied: their ownership ends, and what only they owned goes.

Before controllers had field managers of their own, all of a process wrote under one. Fields that such a version applied
and this one does not would never be removed: server-side apply removes only what the same manager applied before.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar, cast

from kaito.runtime.errors import Conflict, Invalid, NotFound
from kaito.runtime.logging import get_logger
from kaito.runtime.meta import Model, ObjectMeta, Resource

R = TypeVar("R", bound=Resource)

_log = get_logger(__name__)


class ManagedFieldsEntry(Model):
    """One entry of `metadata.managedFields`, without the fields themselves."""

    manager: str = ""
    operation: str = ""
    subresource: str = ""


def managed_fields_of(obj: Resource) -> list[ManagedFieldsEntry]:
    """Who owns fields of an object as the server sent it; cached objects have no such entries."""
    entries = (obj.metadata.model_extra or {}).get("managedFields") or ()
    return [ManagedFieldsEntry.model_validate(entry) for entry in entries]


async def remove_former_managers(
    result: R,
    former: Sequence[str],
    field_manager: str,
    apply: Callable[[R, str], Awaitable[R]],
    *,
    subresource: str = "",
) -> R:
    """Apply nothing under each former name that still owns fields, which removes those without another owner.

    Args:
        result: the object as the server answered an apply of `field_manager`.
        former: the names.
        field_manager: the present name.
        apply: applies an object under a name.
        subresource: whose fields.
    """
    for name in former:
        owned = any(
            entry.manager == name and entry.operation == "Apply" and entry.subresource == subresource
            for entry in managed_fields_of(result)
        )
        if name == field_manager or not owned:
            continue
        fields = {"kind": result.kind, "object": str(result.key), "former": name, "field_manager": field_manager}
        metadata = ObjectMeta(name=result.name, namespace=result.namespace, uid=result.uid)
        nothing = cast("R", type(result).model_construct(_fields_set={"metadata"}, metadata=metadata))  # pyright: ignore[reportUnnecessaryCast] -- mypy loses R
        try:
            result = await apply(nothing, name)
        except (Conflict, Invalid, NotFound) as refused:
            _log.warning("fields of a former field manager not removed", **fields, error=str(refused))
        else:
            _log.info("fields of a former field manager taken over", **fields)
    return result
