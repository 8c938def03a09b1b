"""The status scope: what a reconcile wants to say about its object, written once, at the end, only if it differs.

`Api.status(obj)` opens it. Changes are remembered as intentions, not as a finished status, so that a conflict is
answered by reading the object again and saying the same on top of what others wrote.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Generic, TypeVar, cast, final, get_args

from kaito.runtime.client.patch import Json, MergePatch, merge_diff
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.meta import (
    Condition,
    Model,
    Resource,
    find_condition,
    remove_condition,
    set_condition,
)
from kaito.runtime.meta.condition import ConditionLike, as_condition, condition_flaw, condition_status

R = TypeVar("R", bound=Resource)


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
    """Collects changes of one object's status. The times and generations of conditions are its business."""

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
        """Say whether an aspect holds (None: not known), why in a CamelCase word, and to people in a sentence.

        Returns whether that changes anything; `lastTransitionTime` moves only with the status.

        Raises:
            ConfigurationError: the status has no conditions, or `metav1.Condition` allows no such type or reason.
        """
        model = condition_model(self._model)
        if flaw := condition_flaw(type, reason):
            raise ConfigurationError(flaw)
        before = self.find(type)
        fields: dict[str, Any] = {"type": type, "status": condition_status(holds), "reason": reason, "message": message}
        if "observed_generation" in model.model_fields:
            fields["observed_generation"] = self._generation or None
        new = cast("ConditionLike", model(**fields))
        self._conditions[type] = new
        self._status = self._with_condition(self._status, new)
        return self.find(type) != before

    def remove_condition(self, type: str) -> None:  # noqa: A002 -- the API's word
        """Take a condition out; nothing happens when it is not there."""
        self._conditions[type] = None
        self._status = self._status.evolve(conditions=remove_condition(_conditions(self._status), type))

    def set(self, **fields: Any) -> None:
        """Set fields of the status, by their Python names; None removes one.

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
        """The difference between the status `obj` has and the one intended; empty when they are equal.

        It names the version it was computed from: others' entries of a list must not be lost, and the status of an
        object that is gone must not be written to another one of its name, which no UID in a patch prevents.
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
