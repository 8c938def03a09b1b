"""What a step of a reconcile raised, and how conditions and events report it."""

from dataclasses import dataclass
from typing import Final, cast, final

from pydantic import ValidationError

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
    """What the step does, for messages."""
    error: Exception
    """What it raised."""

    @property
    def message(self) -> str:
        """What failed and why, with the API server's message if there is one."""
        return f"{self.step} failed: {describe(self.error)}"


def describe(error: BaseException) -> str:
    """An error in one line: the API server's message as it is, other errors with their type."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return "; ".join(describe(each) for each in group.exceptions)[:MESSAGE_LENGTH]
    text = error.message if isinstance(error, ApiError) else str(error)
    line = " ".join(text.split())
    return (line if isinstance(error, ApiError) else f"{type(error).__name__}: {line}")[:MESSAGE_LENGTH]


_NOT_ABOUT_CONTENT: Final = frozenset({401, 404, 408, 409, 410, 429})
"""Client errors that are about credentials, absence, time or versions."""

_UNTYPABLE: Final = ("failed to create typed patch object", "field not declared in schema")
"""What kube-apiserver answers with status 500 when an applied object does not fit the schema of its kind."""


def is_refusal(error: Exception) -> bool:
    """Whether an error is about the object's content or about permission, so that it belongs into the conditions.

    Judged by the answer's content where its status misleads: server-side apply answers 500 to a field that the kind
    does not have.
    """
    if isinstance(error, ValidationError):
        return True
    if not isinstance(error, ApiError):
        return False
    if error.code == 500:
        return any(text in error.message for text in _UNTYPABLE)
    return 400 <= error.code < 500 and error.code not in _NOT_ABOUT_CONTENT
