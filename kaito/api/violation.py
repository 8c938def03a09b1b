"""The result of validation functions: a violated rule with its field and the remedy.

`introduced` compares the violations of two states of an object, so that the same rules apply to create and update.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, final

Severity = Literal["error", "warning"]


@final
@dataclass(frozen=True, slots=True, order=True)
class Violation:
    """One violated rule."""

    field: str
    """Path of the field as the user wrote it, for example `inference.adapters[1].source.name`."""

    message: str
    """What is wrong, with the value, and the remedy: a clause that follows the path and a colon."""

    severity: Severity = "error"
    """A warning is returned to the user and does not reject the object."""

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


def introduced(before: Iterable[Violation], after: Iterable[Violation]) -> list[Violation]:
    """Returns the violations of the new state that the old state did not have.

    An object that was stored before a rule existed can therefore still be labeled, scaled and finalized.
    """
    known = set(before)
    return [violation for violation in after if violation not in known]
