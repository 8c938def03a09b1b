"""A broken rule: which field, and what to do about it. What every validation function of `kaito` returns.

`introduced` turns the answer for two states of an object into the answer for the update between them, so the same
rules run on create and on update.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, final

Severity = Literal["error", "warning"]


@final
@dataclass(frozen=True, slots=True, order=True)
class Violation:
    """One broken rule."""

    field: str
    """Path of the field as the user wrote it, for example `inference.adapters[1].source.name`."""

    message: str
    """What is wrong, with the value, and the remedy. A clause that reads well after the path and a colon."""

    severity: Severity = "error"
    """`warning` is told to the user and does not refuse the object."""

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


def introduced(before: Iterable[Violation], after: Iterable[Violation]) -> list[Violation]:
    """What an update makes wrong: the violations of the new state that the old state did not have.

    An object stored before a rule existed can therefore still be labeled, scaled or finalized.
    """
    known = set(before)
    return [violation for violation in after if violation not in known]
