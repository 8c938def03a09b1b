"""The status scope: collects the status changes of one reconcile and writes them once, at the end, if they differ.

`Api.status(obj)` opens it. The scope records changes, not a finished status: on a conflict the client reads the object
again and applies the same changes to the status that others wrote.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Literal, Self, TypeVar, cast, final, get_args

from kaito.runtime.client.patch import Json, MergePatch, merge_diff
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.meta import (
    Condition,
    ConditionStatus,
    Model,
    Resource,
    find_condition,
    remove_condition,
    set_condition,
)
from kaito.runtime.meta.condition import STATUSES, ConditionLike, as_condition, condition_problem, condition_status

R = TypeVar("R", bound=Resource)

ConditionField = Literal["status", "reason", "message"]
"""What has to differ between two conditions; see `ConditionUpdate.differs_from`."""


@final
@dataclass(frozen=True, slots=True)
class ConditionUpdate:
    """A condition as a reconcile computed it; `StatusScope.set_condition` adds the time and the generation."""

    type: str
    status: ConditionStatus
    reason: str
    """A CamelCase word."""
    message: str = ""

    @classmethod
    def true(cls, type: str, reason: str, message: str = "") -> Self:  # noqa: A002 -- the API's word
        """The condition holds."""
        return cls(type, "True", reason, message)

    @classmethod
    def false(cls, type: str, reason: str, message: str = "") -> Self:  # noqa: A002 -- the API's word
        """The condition does not hold, for this reason."""
        return cls(type, "False", reason, message)

    @classmethod
    def unknown(cls, type: str, reason: str, message: str = "") -> Self:  # noqa: A002 -- the API's word
        """The condition was not evaluated, for this reason."""
        return cls(type, "Unknown", reason, message)

    @property
    def is_true(self) -> bool:
        """Whether the condition holds."""
        return self.status == "True"

    def differs_from(self, before: Condition | None, *, on: ConditionField = "reason") -> bool:
        """Whether the condition changed, compared with the one an object had before (None: it had none).

        Args:
            before: the earlier condition.
            on: `status`: it became True, or ceased to be; an absent condition counts as not True. `reason`: the reason
                is another one. `message`: the reason is another one, or the earlier message does not contain this one;
                a message that others extended is still the same message.
        """
        if on == "status":
            return self.is_true != (before is not None and before.is_true)
        if before is None or before.reason != self.reason:
            return True
        return on == "message" and self.message not in before.message


def status_model(kind: type[Resource]) -> type[Model]:
    """The class of a kind's `status`.

    Raises:
        ConfigurationError: the kind has no status.
    """
    field = kind.model_fields.get("status")
    if field is not None:
        options = getattr(field.annotation, "__args__", (field.annotation,))
        for option in options:
            if isinstance(option, type) and issubclass(option, Model):
                return option
    message = f"{kind.kind} has no status that is a Model"
    raise ConfigurationError(message)


def condition_model(status: type[Model]) -> type[Model]:
    """The class of a status's conditions: `Condition`, or the kind's own (Node, Pod, Deployment and Job have theirs).

    Raises:
        ConfigurationError: there are none, or they are not models with a type, a status, a reason and a message.
    """
    field = status.model_fields.get("conditions")
    if field is None:
        message = f"{status.__name__} has no conditions"
        raise ConfigurationError(message)
    for item in _parts(field.annotation):
        if isinstance(item, type) and issubclass(item, Model) and set(item.model_fields) >= _CONDITION_FIELDS:
            return item
    message = (
        f"{status.__name__}.conditions is {field.annotation}: for status.condition() declare list[Condition], "
        f"or a list of a Model with {', '.join(sorted(_CONDITION_FIELDS))}"
    )
    raise ConfigurationError(message)


def _parts(annotation: Any) -> Iterator[Any]:
    """The types an annotation is made of: those in `list[X] | None` are `list[X]`, `X` and `None`."""
    for part in get_args(annotation):
        yield part
        yield from _parts(part)


_CONDITION_FIELDS = {"type", "status", "reason", "message", "last_transition_time"}


@final
class StatusScope(Generic[R]):
    """Collects changes of one object's status. Sets the transition times and observed generations of conditions."""

    def __init__(self, obj: R, *, now: datetime) -> None:
        self._model = status_model(type(obj))
        self._generation = obj.metadata.generation
        self._now = now
        self._status = self._read(obj)
        self._conditions: dict[str, ConditionLike | None] = {}
        self._fields: dict[str, Any] = {}

    @property
    def conditions(self) -> list[Condition]:
        """The conditions as they will be written."""
        return [as_condition(condition) for condition in _conditions(self._status)]

    def find(self, type: str) -> Condition | None:  # noqa: A002 -- the API's word
        """The condition of that type, as it will be written."""
        return find_condition(self.conditions, type)

    def condition(self, type: str, holds: bool | None, reason: str, message: str = "") -> bool:  # noqa: A002 -- the API's words
        """Sets a condition from a truth value; None stands for `Unknown`. Otherwise as `set_condition`."""
        return self.set_condition(ConditionUpdate(type, condition_status(holds), reason, message))

    def set_condition(self, update: ConditionUpdate) -> bool:
        """Sets a condition. `lastTransitionTime` changes only together with the condition's status.

        Returns:
            Whether anything differs from the condition before.

        Raises:
            ConfigurationError: the kind's status has no conditions, or `metav1.Condition` does not allow the type, the
                status or the reason.
        """
        model = condition_model(self._model)
        if flaw := condition_problem(update.type, update.reason):
            raise ConfigurationError(flaw)
        if update.status not in STATUSES:
            message = f"condition {update.type}: status must be one of {', '.join(STATUSES)}, not {update.status!r}"
            raise ConfigurationError(message)
        before = self.find(update.type)
        fields: dict[str, Any] = {
            "type": update.type,
            "status": update.status,
            "reason": update.reason,
            "message": update.message,
        }
        if "observed_generation" in model.model_fields:
            fields["observed_generation"] = self._generation or None
        new = cast("ConditionLike", model(**fields))
        self._conditions[update.type] = new
        self._status = self._with_condition(self._status, new)
        return self.find(update.type) != before

    def remove_condition(self, type: str) -> None:  # noqa: A002 -- the API's word
        """Removes a condition, if it exists."""
        self._conditions[type] = None
        self._status = self._status.evolve(conditions=remove_condition(_conditions(self._status), type))

    def set(self, **fields: Any) -> None:
        """Sets fields of the status, by their Python names; None removes one.

        Raises:
            ConfigurationError: the status has no such field.
        """
        for name in fields:
            if name == "conditions" or name not in self._model.model_fields:
                known = ", ".join(sorted(set(self._model.model_fields) - {"conditions"}))
                message = f"{self._model.__name__} has no field {name!r} to set; it has: {known}"
                raise ConfigurationError(message)
        self._fields |= fields
        self._status = self._status.evolve(**fields)

    def patch_for(self, obj: R) -> MergePatch:
        """The merge patch from the status of `obj` to the intended one; empty when they are equal.

        The patch contains the resource version it was computed from. A merge patch replaces whole lists, so without
        the version it could drop entries that others added, or write the status of a deleted object to a new object of
        the same name: API servers do not check a UID in a status patch.
        """
        before = self._read(obj)
        after = before.evolve(**self._fields) if self._fields else before
        for condition_type, condition in self._conditions.items():
            if condition is None:
                conditions = remove_condition(_conditions(after), condition_type)
                after = after.evolve(conditions=conditions)
            else:
                after = self._with_condition(after, condition)
        if (self._fields or self._conditions) and "observed_generation" in self._model.model_fields:
            after = after.evolve(observed_generation=self._generation)
        difference = merge_diff(before.to_dict(), after.to_dict())
        if not difference:
            return MergePatch({})
        document: Json = {"status": difference}
        if obj.metadata.resource_version:
            document["metadata"] = {"resourceVersion": obj.metadata.resource_version}
        return MergePatch(document)

    def _read(self, obj: R) -> Model:
        status = cast("Model | None", getattr(obj, "status", None))
        return self._model() if status is None else status

    def _with_condition(self, status: Model, new: ConditionLike) -> Model:
        return status.evolve(conditions=set_condition(_conditions(status), new, now=self._now))


def _conditions(status: Model) -> list[ConditionLike]:
    return list(cast("list[ConditionLike] | None", getattr(status, "conditions", None)) or ())
