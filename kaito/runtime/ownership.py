"""Owner references: set, removed and checked on objects that are built in code.

`Api.ensure(..., owner=)` sets them, too. The functions are pure; the garbage collector of the cluster deletes
dependents. The rules are controller-runtime's, with one exception: an owner that was recreated with the same name has
another UID, and adopts the dependents only with `adopt`.
"""

from typing import TypeVar

from kaito.runtime.errors import AlreadyOwned, ConfigurationError
from kaito.runtime.meta import ObjectMeta, OwnerReference, Resource

R = TypeVar("R", bound=Resource)


def controlled_by(obj: R, owner: Resource, *, block_deletion: bool = True, adopt: bool = False) -> R:
    """A copy of `obj` whose controller is `owner`.

    Args:
        obj: the dependent; it gets the owner's namespace if it has none.
        owner: the owner, which must exist (have a UID).
        block_deletion: foreground deletion of the owner waits for the dependent.
        adopt: replace a former owner with the same name and kind.

    Raises:
        ConfigurationError: a namespaced owner of a cluster-scoped object, or of one in another namespace.
        AlreadyOwned: the object has another controller.
    """
    return _with_owner(obj, owner, controller=True, block_deletion=block_deletion, adopt=adopt)


def owned_by(obj: R, owner: Resource, *, adopt: bool = False) -> R:
    """A copy of `obj` that is deleted when `owner` and all its other owners are. Arguments as in `controlled_by`."""
    return _with_owner(obj, owner, controller=False, block_deletion=False, adopt=adopt)


def disowned(obj: R, owner: Resource) -> R:
    """A copy of `obj` without its reference to `owner`, compared by UID.

    Raises:
        ConfigurationError: there is no such reference.
    """
    references = [reference for reference in obj.metadata.owner_references if reference.uid != owner.uid]
    if len(references) == len(obj.metadata.owner_references):
        message = f"{obj.kind} {obj.key} does not belong to {owner.kind} {owner.key} (uid {owner.uid})"
        raise ConfigurationError(message)
    return obj.with_metadata(owner_references=references)


def is_owned_by(obj: Resource, owner: Resource) -> bool:
    """Whether `owner` is one of the owners, compared by UID."""
    return bool(owner.uid) and any(reference.uid == owner.uid for reference in obj.metadata.owner_references)


def controller_of(metadata: ObjectMeta) -> OwnerReference | None:
    """The reference to the controller, if there is one."""
    return next((reference for reference in metadata.owner_references if reference.controller), None)


def same_owner(one: OwnerReference, other: OwnerReference) -> bool:
    """Whether both have the same group, kind and name; the UID may differ."""
    return (one.group, one.kind, one.name) == (other.group, other.kind, other.name)


def check_controller(obj: Resource, reference: OwnerReference, *, adopt: bool) -> None:
    """Checks that `obj` has no other controller.

    Raises:
        AlreadyOwned: `obj` has another controller; with `adopt`, one of the same name does not count.
    """
    present = controller_of(obj.metadata)
    if present is None or present.uid == reference.uid or (adopt and same_owner(present, reference)):
        return
    message = f"{obj.kind} {obj.key} is controlled by {present.kind} {present.name} (uid {present.uid})"
    if same_owner(present, reference):
        message += (
            f", which does not exist: the {reference.kind} of that name now has uid {reference.uid}. "
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
