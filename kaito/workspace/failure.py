"""Failures of reconcile steps, and their form in conditions and events."""

from dataclasses import dataclass
from typing import Final, cast, final

from pydantic import ValidationError

from kaito.runtime.errors import ApiError

MAX_ERROR_CHARACTERS: Final = 1024
"""Longest error in a condition."""

MAX_FOREIGN_CHARACTERS: Final = 800
"""Longest message of a provisioner in a condition; some contain a multi-line dump of a cloud's response."""


def shorten(text: str, limit: int = MAX_FOREIGN_CHARACTERS) -> str:
    """Joins a text to one line and cuts it at `limit` characters, marked by `…`."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


@final
@dataclass(frozen=True, slots=True)
class Step:
    """One step of a reconcile."""

    name: str
    """What the step does, as the subject of "… failed"."""
    condition_types: frozenset[str] = frozenset()
    """Conditions that the step decides, and that are Unknown if it fails before it observed anything."""


@final
@dataclass(frozen=True, slots=True)
class StepFailure:
    """An exception that a step raised."""

    step: Step
    error: Exception

    @property
    def message(self) -> str:
        """What failed and why, with the API server's message if there is one."""
        return f"{self.step.name} failed: {format_error(self.error)}"


def format_error(error: BaseException) -> str:
    """Formats an error in one line: an API server's message unchanged, other errors with their type."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return "; ".join(format_error(each) for each in group.exceptions)[:MAX_ERROR_CHARACTERS]
    text = error.message if isinstance(error, ApiError) else str(error)
    line = " ".join(text.split())
    return (line if isinstance(error, ApiError) else f"{type(error).__name__}: {line}")[:MAX_ERROR_CHARACTERS]


_UNRELATED_TO_CONTENT: Final = frozenset({401, 404, 408, 409, 410, 429})
"""Client errors about credentials, absence, time or versions."""

_SCHEMA_MISMATCH: Final = ("failed to create typed patch object", "field not declared in schema")
"""Messages with which kube-apiserver returns status 500 if an applied object does not match the schema of its kind."""


def is_rejection(error: Exception) -> bool:
    """Whether the API server rejected an object for its content or for lack of permission.

    Such an error is reported in a condition of the Workspace. The message decides where the status is misleading:
    server-side apply returns 500 for a field that the kind does not have.
    """
    if isinstance(error, ValidationError):
        return True
    if not isinstance(error, ApiError):
        return False
    if error.code == 500:
        return any(text in error.message for text in _SCHEMA_MISMATCH)
    return 400 <= error.code < 500 and error.code not in _UNRELATED_TO_CONTENT
