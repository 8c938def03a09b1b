"""What a step of a reconcile raised, and how conditions and events report it."""

from dataclasses import dataclass
from typing import cast, final

from kaito.runtime.errors import ApiError

MESSAGE_LENGTH = 1024
"""Longest error in a condition, in characters."""


@final
@dataclass(frozen=True, slots=True)
class StepFailure:
    """What a step raised."""

    aspects: frozenset[str]
    """Types of the conditions that the step decides."""
    step: str
    """What the step does, for people."""
    error: Exception
    """What it raised."""

    @property
    def message(self) -> str:
        """What failed and why, with the API server's words if it gave any."""
        return f"{self.step} failed: {describe(self.error)}"


def describe(error: BaseException) -> str:
    """An error in one line: the API server's message as it is, other errors with their type."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return "; ".join(describe(each) for each in group.exceptions)[:MESSAGE_LENGTH]
    text = error.message if isinstance(error, ApiError) else str(error)
    line = " ".join(text.split())
    return (line if isinstance(error, ApiError) else f"{type(error).__name__}: {line}")[:MESSAGE_LENGTH]
