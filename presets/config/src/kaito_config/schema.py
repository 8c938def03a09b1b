"""Validates a document with a pydantic model; errors name the key, the line and the most similar known name."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails

from kaito_config.document import ConfigError, Document, Path, Problem, nearest

ModelT = TypeVar("ModelT", bound=BaseModel)

MAX_PROBLEMS = 10
"""Problems of one file that an error lists; the rest is counted."""


class StrictModel(BaseModel):
    """Base of the schemas: rejects unknown keys, infinite numbers, and booleans in place of numbers."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, regex_engine="python-re", defer_build=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Rejects a boolean for a number, which pydantic would convert to 0 or 1."""
        kind = cls.model_fields[info.field_name].annotation if info.field_name else None
        if isinstance(value, bool) and kind is not None and _is_number(kind):
            raise ValueError(f"must be a number, not {str(value).lower()}")
        return value


def validate(model: type[ModelT], value: Any, document: Document, *, at: Path = ()) -> ModelT:
    """Validates `value`, which is at path `at` of the document.

    Raises:
        ConfigError: keys are unknown or have wrong values.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)
        problems = [_problem(model, detail, document, at) for detail in details[:MAX_PROBLEMS]]
        if len(details) > MAX_PROBLEMS:
            problems.append(Problem(f"and {len(details) - MAX_PROBLEMS} more"))
        raise ConfigError(problems) from error


def _problem(model: type[BaseModel], detail: ErrorDetails, document: Document, at: Path) -> Problem:
    where = tuple(_plain(detail["loc"], document, at))
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        known = _keys_at(model, detail["loc"][:-1])
        name = str(detail["loc"][-1])
        hint = nearest(name, known)
        message = f"unknown key{hint}" if hint else f"unknown key; known: {', '.join(sorted(known))}"
    elif detail["type"] not in {"value_error", "missing"}:
        message = f"{message[:1].lower()}{message[1:]}, found {_shown(detail['input'])}"
    return document.problem((*at, *where), message)


def _plain(location: tuple[str | int, ...], document: Document, at: Path) -> Iterator[str | int]:
    """Yields the location without the names of union members that pydantic appends to it."""
    path: Path = at
    for index, part in enumerate(location):
        path = (*path, part)
        if index and path not in document.positions and document.positions:
            return
        yield part


def _keys_at(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    """Returns the keys of the schema at a location."""
    kind: Any = model
    for part in location:
        known = kind.model_fields if isinstance(kind, type) and issubclass(kind, BaseModel) else {}
        kind = known[str(part)].annotation if str(part) in known else None
    return list(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else []


def _is_number(annotation: object) -> bool:
    kinds = get_args(annotation) or (annotation,)
    return (int in kinds or float in kinds) and bool not in kinds


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


NUMBER_FORMATS = frozenset({"auto", "bfloat16", "double", "float", "float16", "float32", "float64", "half"})
"""Floating-point types of PyTorch for computation; `auto` is the type of the checkpoint."""


def number_format_problem(name: str | None) -> str:
    """Returns why a text is not a number format, with the remedy; empty if it is one, or None."""
    if name is None or name.removeprefix("torch.") in NUMBER_FORMATS:
        return ""
    return f"is {name!r}: use {', '.join(sorted(NUMBER_FORMATS))}"
