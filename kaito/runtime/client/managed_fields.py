"""Ends the ownership of fields by earlier field managers of an operator.

Server-side apply removes a field only if the manager that applies now has applied it before. When an operator changes
its field manager, the old manager remains an owner in `metadata.managedFields`: fields that the new version does not
apply any more would stay in the object. Applying an object without fields under the old name removes its ownership, and
with it the fields that have no other owner.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar, cast

from kaito.runtime.errors import Conflict, Invalid, NotFound
from kaito.runtime.logging import get_logger
from kaito.runtime.meta import Model, ObjectMeta, Resource

R = TypeVar("R", bound=Resource)

_log = get_logger(__name__)


class ManagedFieldsEntry(Model):
    """Entry of `metadata.managedFields`, without the fields."""

    manager: str = ""
    operation: str = ""
    subresource: str = ""


def managed_fields_of(obj: Resource) -> list[ManagedFieldsEntry]:
    """Returns the managed fields of an object that the server returned; cached objects have none."""
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
    """Applies an empty object under each former manager that owns fields, which removes fields without another owner.

    Args:
        result: The response to an apply of `field_manager`.
        former: Former field managers.
        field_manager: The current field manager.
        apply: Applies an object under a field manager.
        subresource: The subresource of the fields.
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
