"""From a document to a pydantic model, with errors that name key, line and the nearest known name."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails

from kaito_config.document import ConfigError, Document, Path, Problem, nearest

ModelT = TypeVar("ModelT", bound=BaseModel)

MOST_PROBLEMS = 10
"""Problems of one file that are listed; the rest is counted."""


class Strict(BaseModel):
    """A mapping that refuses unknown keys, infinite numbers, and `true` where a number belongs."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, regex_engine="python-re")

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        """pydantic reads true as 1; in a configuration file that is a mistake."""
        kind = cls.model_fields[info.field_name].annotation if info.field_name else None
        if isinstance(value, bool) and kind is not None and _is_number(kind):
            raise ValueError(f"must be a number, not {str(value).lower()}")
        return value


def validate(model: type[ModelT], value: Any, document: Document, *, at: Path = ()) -> ModelT:
    """`value`, which stands at path `at` of the document, as a model.

    Raises:
        ConfigError: lists the wrong keys.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)
        problems = [_problem(model, detail, document, at) for detail in details[:MOST_PROBLEMS]]
        if len(details) > MOST_PROBLEMS:
            problems.append(Problem(f"and {len(details) - MOST_PROBLEMS} more"))
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
    """The location without the names of union members that pydantic adds behind the real keys."""
    path: Path = at
    for index, part in enumerate(location):
        path = (*path, part)
        if index and path not in document.positions and document.positions:
            return
        yield part


def _keys_at(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    """Names of the keys that the schema knows at that place."""
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
"""PyTorch's floating-point types that models are computed in; `auto` is the checkpoint's."""


def number_format_problem(name: str | None) -> str:
    """Why a text is not a number format, with the remedy; empty when it is one, or None."""
    if name is None or name.removeprefix("torch.") in NUMBER_FORMATS:
        return ""
    return f"is {name!r}: use {', '.join(sorted(NUMBER_FORMATS))}"
