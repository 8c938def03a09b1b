"""Status conditions as the API conventions define them (`metav1.Condition`).

`set_condition` is a pure function on lists; the status scope of the client and every reconciler go through it, so that
`lastTransitionTime` moves only when the status moves.
"""

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Protocol, Self, TypeVar

from pydantic import WithJsonSchema

from kaito.runtime.meta.model import Model, Time
from kaito.runtime.meta.resource import Resource

ConditionStatus = Literal["True", "False", "Unknown"]
"""What is written."""

STATUSES: Final = ("True", "False", "Unknown")

MESSAGE_LIMIT = 32768
"""Longest message the API server accepts (`metav1.Condition` schema)."""

REASON_LIMIT = 1024
"""Longest reason (`metav1.Condition` schema)."""

_REASON = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?")
_TYPE = re.compile(r"([a-z0-9][-a-z0-9.]*/)?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")


class Condition(Model):
    """One aspect of an object's state: a type, whether it holds, and why."""

    type: str
    status: Annotated[str, WithJsonSchema({"type": "string", "enum": list(STATUSES)})]
    # Schemas hold it to these words; reading accepts any text, as all Go clients do.
    reason: str = ""
    message: str = ""
    observed_generation: int | None = None
    last_transition_time: Time | None = None

    @property
    def is_true(self) -> bool:
        """Whether the condition holds."""
        return self.status == "True"


class ConditionLike(Protocol):
    """`Condition`, or one of the classes that kinds older than `metav1.Condition` have (Node, Pod, Deployment, Job)."""

    @property
    def type(self) -> str:
        """The aspect."""
        ...

    @property
    def status(self) -> str:
        """Whether it holds."""
        ...

    @property
    def message(self) -> str | None:
        """Why, for people."""
        ...

    @property
    def last_transition_time(self) -> datetime | None:
        """Since when."""
        ...

    def evolve(self, **changes: Any) -> Self:
        """A copy with some fields replaced."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        ...


C = TypeVar("C", bound=ConditionLike)


def find_condition(conditions: Iterable[C], condition_type: str) -> C | None:
    """The condition of that type, if present."""
    return next((condition for condition in conditions if condition.type == condition_type), None)


def condition_of(obj: Resource, condition_type: str) -> Condition:
    """A condition of an object of any kind whose status has conditions.

    One that is not there is `Unknown` without a reason: the API conventions want its absence read so.
    """
    conditions: Iterable[ConditionLike] = getattr(getattr(obj, "status", None), "conditions", None) or ()
    found = find_condition(conditions, condition_type)
    return Condition(type=condition_type, status="Unknown") if found is None else as_condition(found)


def as_condition(condition: ConditionLike) -> Condition:
    """The same as a `metav1.Condition`; a status that is none of its three words is `Unknown`."""
    if isinstance(condition, Condition) and condition.status in STATUSES:
        return condition
    document = condition.to_dict()
    if document.get("status") not in {"True", "False"}:
        document["status"] = "Unknown"
    return Condition.model_validate(document)


def condition_problem(condition_type: str, reason: str) -> str:
    """What `metav1.Condition` does not allow about a type and a reason; empty when it does."""
    if _TYPE.fullmatch(condition_type) is None:
        return f"{condition_type!r} is no condition type: take a CamelCase word"
    if _REASON.fullmatch(reason) is None or len(reason) > REASON_LIMIT:
        return f"{reason!r} is no reason for the condition {condition_type}: take a CamelCase word"
    return ""


def condition_status(holds: bool | None) -> ConditionStatus:
    """The wire form of yes, no and not known."""
    if holds is None:
        return "Unknown"
    return "True" if holds else "False"


def set_condition(conditions: Iterable[C], new: C, *, now: datetime) -> list[C]:
    """The list with `new` in place of its type's old entry; order is kept, a new type goes to the end.

    `lastTransitionTime` is the old one while the status is unchanged, else `new`'s own, else `now`.
    """
    result = list(conditions)
    for index, old in enumerate(result):
        if old.type == new.type:
            moment = old.last_transition_time if old.status == new.status else new.last_transition_time or now
            result[index] = new.evolve(last_transition_time=moment or now, message=_cut(new))
            return result
    result.append(new.evolve(last_transition_time=new.last_transition_time or now, message=_cut(new)))
    return result


def remove_condition(conditions: Iterable[C], condition_type: str) -> list[C]:
    """The list without that type."""
    return [condition for condition in conditions if condition.type != condition_type]


def _cut(condition: ConditionLike) -> str:
    return (condition.message or "")[:MESSAGE_LIMIT]
