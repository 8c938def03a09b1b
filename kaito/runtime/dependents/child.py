"""`Child`: one declared dependent, and when it counts as ready."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar, cast

from kaito.runtime.errors import ConfigurationError
from kaito.runtime.kinds import DaemonSet, Deployment, Job, StatefulSet
from kaito.runtime.meta import ObjectKey, Resource, condition_of

R = TypeVar("R", bound=Resource)

Readiness: TypeAlias = Callable[[R], bool | str]
"""Returns True for a ready object; False, or a text that explains it, for one that is not."""


def _exists(_: Resource) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Child(Generic[R]):
    """A dependent as it should be."""

    object: R
    """Exactly the fields to own, as for `Api.ensure`."""
    ready: Readiness[R] = _exists
    """When later stages may follow; by default as soon as it exists."""
    adopt: bool = False
    """Take over an existing object of this name that has no controller, or an earlier owner of the same name."""


Stage: TypeAlias = Child[Any] | Resource | Iterable[Child[Any] | Resource | None] | None


AnyChild: TypeAlias = Child[Resource]
"""A child of any kind, inside of the package."""


def stages_of(stages: Sequence[Stage]) -> list[list[AnyChild]]:
    """Returns the children of each stage.

    Raises:
        ConfigurationError: something else than objects and children.
    """
    found = [list(_children(stage)) for stage in stages]
    return [stage for stage in found if stage]


def _children(stage: object) -> Iterable[AnyChild]:
    match stage:
        case None:
            return
        case Child():
            yield stage
        case Resource():
            yield Child(stage)
        case str() | bytes():
            message = f"a dependent is an object or a Child(...), not {stage!r}"
            raise ConfigurationError(message)
        case Iterable():  # pyright: ignore[reportUnknownVariableType] -- checked below
            for each in cast("Iterable[object]", stage):
                if isinstance(each, list | tuple):
                    message = f"a stage is a list of objects and Child(...), not of {each!r}"
                    raise ConfigurationError(message)
                yield from _children(each)
        case _:
            message = f"a dependent is an object or a Child(...), not {stage!r}"
            raise ConfigurationError(message)


def key_in(obj: Resource, owner: Resource) -> ObjectKey:
    """The key of a child, in the owner's namespace unless it names one."""
    if not obj.namespaced:
        return ObjectKey("", obj.name)
    return ObjectKey(obj.namespace or owner.namespace, obj.name)


# -- readiness -------------------------------------------------------------------------------------------------------


def rolled_out(obj: Deployment | StatefulSet | DaemonSet) -> bool | str:
    """Whether all pods of the current generation are available, as `kubectl rollout status` decides."""
    status = obj.status
    if status.observed_generation < obj.metadata.generation:
        return "its controller has not observed the change"
    if isinstance(obj, DaemonSet):
        wanted, updated, available = (
            obj.status.desired_number_scheduled,
            obj.status.updated_number_scheduled,
            obj.status.number_available,
        )
    else:
        wanted = 1 if obj.spec.replicas is None else obj.spec.replicas
        updated, available = obj.status.updated_replicas, obj.status.available_replicas
    if updated < wanted:
        return f"{updated} of {wanted} pods are updated"
    if available < wanted:
        return f"{available} of {wanted} pods are available"
    return True


def completed(job: Job) -> bool | str:
    """Whether the Job has completed."""
    if job.has_condition("Failed"):
        return "the Job has failed"
    return job.has_condition("Complete") or "the Job has not completed"


def has_condition(condition_type: str) -> Readiness[Resource]:
    """Returns a readiness that needs a condition to be True, for its observed generation if it has one."""

    def ready(obj: Resource) -> bool | str:
        condition = condition_of(obj, condition_type)
        observed = condition.observed_generation
        if observed is not None and observed < obj.metadata.generation:
            return f"{condition_type} is of an earlier generation"
        if condition.is_true:
            return True
        return f"{condition_type} is {condition.status}" + (f": {condition.message}" if condition.message else "")

    return ready
