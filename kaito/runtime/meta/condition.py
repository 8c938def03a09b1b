"""Status conditions as the API conventions define them (`metav1.Condition`).

`set_condition` is a pure function on lists; the client's status scope uses it, so that `lastTransitionTime` changes
only with the status.
"""

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Protocol, Self, TypeVar

from pydantic import WithJsonSchema

from kaito.runtime.meta.model import Model, Time
from kaito.runtime.meta.resource import Resource

ConditionStatus = Literal["True", "False", "Unknown"]
"""The statuses of conditions."""

STATUSES: Final = ("True", "False", "Unknown")

MESSAGE_LIMIT = 32768
"""Maximum length of a message (`metav1.Condition` schema)."""

REASON_LIMIT = 1024
"""Maximum length of a reason (`metav1.Condition` schema)."""

_REASON = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?")
_TYPE = re.compile(r"([a-z0-9][-a-z0-9.]*/)?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")


class Condition(Model):
    """One aspect of an object's state: its type, status, reason and message."""

    type: str
    status: Annotated[str, WithJsonSchema({"type": "string", "enum": list(STATUSES)})]
    # Schemas restrict the status to these values; reading accepts any text, as Go clients do.
    reason: str = ""
    message: str = ""
    observed_generation: int | None = None
    last_transition_time: Time | None = None

    @property
    def is_true(self) -> bool:
        """Whether the condition holds."""
        return self.status == "True"


class ConditionLike(Protocol):
    """`Condition`, or the condition class of a kind older than `metav1.Condition` (Node, Pod, Deployment, Job)."""

    @property
    def type(self) -> str:
        """CamelCase name of the condition."""
        ...

    @property
    def status(self) -> str:
        """`True`, `False` or `Unknown`."""
        ...

    @property
    def message(self) -> str | None:
        """Human-readable explanation."""
        ...

    @property
    def last_transition_time(self) -> datetime | None:
        """Time of the last change of the status."""
        ...

    def evolve(self, **changes: Any) -> Self:
        """Returns a copy with some fields replaced."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        ...


C = TypeVar("C", bound=ConditionLike)


def find_condition(conditions: Iterable[C], condition_type: str) -> C | None:
    """Returns the condition of the type, if present."""
    return next((condition for condition in conditions if condition.type == condition_type), None)


def condition_of(obj: Resource, condition_type: str) -> Condition:
    """Returns a condition of an object whose status has conditions.

    A missing condition is `Unknown` without a reason, as the API conventions require.
    """
    conditions: Iterable[ConditionLike] = getattr(getattr(obj, "status", None), "conditions", None) or ()
    found = find_condition(conditions, condition_type)
    return Condition(type=condition_type, status="Unknown") if found is None else as_condition(found)


def as_condition(condition: ConditionLike) -> Condition:
    """Converts to a `metav1.Condition`; a status outside its three values becomes `Unknown`."""
    if isinstance(condition, Condition) and condition.status in STATUSES:
        return condition
    document = condition.to_dict()
    if document.get("status") not in {"True", "False"}:
        document["status"] = "Unknown"
    return Condition.model_validate(document)


def condition_problem(condition_type: str, reason: str) -> str:
    """Returns why `metav1.Condition` does not allow a type or a reason; empty if it does."""
    if _TYPE.fullmatch(condition_type) is None:
        return f"{condition_type!r} is not a condition type: use a CamelCase word"
    if _REASON.fullmatch(reason) is None or len(reason) > REASON_LIMIT:
        return f"{reason!r} is not a valid reason of condition {condition_type}: use a CamelCase word"
    return ""


def condition_status(holds: bool | None) -> ConditionStatus:
    """Returns the status for True, False and None (unknown)."""
    if holds is None:
        return "Unknown"
    return "True" if holds else "False"


def set_condition(conditions: Iterable[C], new: C, *, now: datetime) -> list[C]:
    """Returns the list with `new` in place of the entry of its type; a new type is appended.

    `lastTransitionTime` stays while the status is unchanged; otherwise it is that of `new`, or `now`.
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
    """Returns the list without the condition of the type."""
    return [condition for condition in conditions if condition.type != condition_type]


def _cut(condition: ConditionLike) -> str:
    return (condition.message or "")[:MESSAGE_LIMIT]
