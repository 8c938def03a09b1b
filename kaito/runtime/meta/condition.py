"""Status conditions as the API conventions define them (`metav1.Condition`).

`set_condition` is a pure function on lists; the status scope of the client and every reconciler go through it, so that
`lastTransitionTime` moves only when the status moves.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from kaito.runtime.meta.model import Model, Time

ConditionStatus = Literal["True", "False", "Unknown"]

MESSAGE_LIMIT = 32768
"""Longest message the API server accepts (`metav1.Condition` schema)."""


class Condition(Model):
    """One aspect of an object's state: a type, whether it holds, and why."""

    type: str
    status: ConditionStatus
    reason: str = ""
    message: str = ""
    observed_generation: int | None = None
    last_transition_time: Time | None = None

    @property
    def is_true(self) -> bool:
        """Whether the condition holds."""
        return self.status == "True"


def find_condition(conditions: Iterable[Condition], condition_type: str) -> Condition | None:
    """The condition of that type, if present."""
    return next((condition for condition in conditions if condition.type == condition_type), None)


def condition_status(holds: bool | None) -> ConditionStatus:
    """The wire form of yes, no and not known."""
    if holds is None:
        return "Unknown"
    return "True" if holds else "False"


def set_condition(conditions: Iterable[Condition], new: Condition, *, now: datetime) -> list[Condition]:
    """The list with `new` in place of its type's old entry; order is kept, a new type goes to the end.

    `lastTransitionTime` is the old one while the status is unchanged, else `new`'s own, else `now`.
    """
    result = list(conditions)
    for index, old in enumerate(result):
        if old.type == new.type:
            moment = old.last_transition_time if old.status == new.status else new.last_transition_time or now
            result[index] = new.evolve(last_transition_time=moment or now, message=new.message[:MESSAGE_LIMIT])
            return result
    result.append(new.evolve(last_transition_time=new.last_transition_time or now, message=new.message[:MESSAGE_LIMIT]))
    return result


def remove_condition(conditions: Iterable[Condition], condition_type: str) -> list[Condition]:
    """The list without that type."""
    return [condition for condition in conditions if condition.type != condition_type]
