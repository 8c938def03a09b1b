"""Owner references: who an object belongs to, and goes with.

`Api.ensure(..., owner=)` sets them; these functions are for objects built by hand. Pure data, no requests: the garbage
collector of the cluster does the deleting. Rules as in controller-runtime, except that an owner recreated under its
old name has another UID and so adopts only when told to.
"""

from typing import TypeVar

from kaito.runtime.errors import AlreadyOwned, ConfigurationError
from kaito.runtime.meta import ObjectMeta, OwnerReference, Resource

R = TypeVar("R", bound=Resource)


def controlled_by(obj: R, owner: Resource, *, block_deletion: bool = True, adopt: bool = False) -> R:
    """A copy of `obj` whose controller is `owner`.

    Args:
        obj: the dependent; it takes the owner's namespace when it names none.
        owner: must exist, that is have a UID.
        block_deletion: foreground deletion of the owner waits for the dependent.
        adopt: take over from a former owner of the same name and kind.

    Raises:
        ConfigurationError: a namespaced owner of a cluster-scoped object, or of one in another namespace.
        AlreadyOwned: another controller is set.
    """
    return _with_owner(obj, owner, controller=True, block_deletion=block_deletion, adopt=adopt)


def owned_by(obj: R, owner: Resource, *, adopt: bool = False) -> R:
    """A copy of `obj` that goes when `owner` (and every other owner) goes. Arguments and errors as `controlled_by`."""
    return _with_owner(obj, owner, controller=False, block_deletion=False, adopt=adopt)


def disowned(obj: R, owner: Resource) -> R:
    """A copy of `obj` without its reference to `owner`, this very object and not a namesake.

    Raises:
        ConfigurationError: there is no such reference.
    """
    references = [reference for reference in obj.metadata.owner_references if reference.uid != owner.uid]
    if len(references) == len(obj.metadata.owner_references):
        message = f"{obj.kind} {obj.key} does not belong to {owner.kind} {owner.key} (uid {owner.uid})"
        raise ConfigurationError(message)
    return obj.with_metadata(owner_references=references)


def is_owned_by(obj: Resource, owner: Resource) -> bool:
    """Whether `owner`, this very object and not a namesake, is among the owners."""
    return bool(owner.uid) and any(reference.uid == owner.uid for reference in obj.metadata.owner_references)


def controller_of(metadata: ObjectMeta) -> OwnerReference | None:
    """The reference to the controller, if there is one."""
    return next((reference for reference in metadata.owner_references if reference.controller), None)


def same_owner(one: OwnerReference, other: OwnerReference) -> bool:
    """Whether both name the same object as far as words go: group, kind and name. The UID may differ."""
    return (one.group, one.kind, one.name) == (other.group, other.kind, other.name)


def check_controller(obj: Resource, reference: OwnerReference, *, adopt: bool) -> None:
    """Refuse a second controller.

    Raises:
        AlreadyOwned: `obj` has another controller; with `adopt`, one of the same name does not count.
    """
    present = controller_of(obj.metadata)
    if present is None or present.uid == reference.uid or (adopt and same_owner(present, reference)):
        return
    message = f"{obj.kind} {obj.key} is controlled by {present.kind} {present.name} (uid {present.uid})"
    if same_owner(present, reference):
        message += (
            f", which is gone: the {reference.kind} of that name now has uid {reference.uid}. "
            "Wait for the garbage collector, or adopt"
        )
    raise AlreadyOwned(message)


def _with_owner(obj: R, owner: Resource, *, controller: bool, block_deletion: bool, adopt: bool) -> R:
    if owner.namespaced:
        if not obj.namespaced:
            message = f"{obj.kind} {obj.name!r} is cluster-scoped and cannot belong to {owner.kind} {owner.key}"
            raise ConfigurationError(message)
        if obj.namespace and obj.namespace != owner.namespace:
            message = f"{obj.kind} {obj.key} cannot belong to {owner.kind} {owner.key} of another namespace"
            raise ConfigurationError(message)
    reference = owner.owner_reference(controller=controller, block_deletion=block_deletion)
    if not controller:
        reference = reference.evolve(controller=None, block_owner_deletion=None)
    if controller:
        check_controller(obj, reference, adopt=adopt)
    references = [
        present
        for present in obj.metadata.owner_references
        if present.uid != reference.uid and not (adopt and same_owner(present, reference))
    ]
    changes: dict[str, object] = {"owner_references": [*references, reference]}
    if owner.namespaced and not obj.namespace:
        changes["namespace"] = owner.namespace
    return obj.with_metadata(**changes)
