"""Builds command lines from pydantic models: each field becomes a flag with the field's description.

Used by every program of this package. Guarantees:

* A flag has an underscore and a dash form. A boolean flag needs no value. The last value of a repeated flag is used.
* An unknown flag or a wrong value is a ConfigurationError that names the flag. (Upstream Kaito ignores unknown flags,
  so that a misspelled flag has no effect.)
"""

import argparse
import json
from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from kaito_presets.errors import ConfigurationError
from kaito_presets.json_values import is_object

ModelT = TypeVar("ModelT", bound=BaseModel)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigurationError(message)


def parse(model: type[ModelT], arguments: Sequence[str], *, program: str) -> ModelT:
    """Parses `arguments` into `model`.

    Raises:
        ConfigurationError: a flag is unknown, a required one is missing, or a value has the wrong type.
        SystemExit: the arguments contain `--help`.
    """
    return validated(model, raw_values(model, arguments, program=program))


def raw_values(model: type[BaseModel], arguments: Sequence[str], *, program: str) -> dict[str, Any]:
    """Returns the values of the flags that are set, by field name and without validation."""
    description = (model.__doc__ or "").partition("\n")[0]
    parser = _Parser(prog=program, description=description, allow_abbrev=False)
    positionals: set[str] = set()
    for name, field in model.model_fields.items():
        text = (field.description or "").replace("%", "%%")
        extra = field.json_schema_extra
        if is_object(extra) and extra.get("positional"):
            positionals.add(name)
            parser.add_argument(name, help=text)
            continue
        default = "" if field.is_required() else f" (default: {field.get_default(call_default_factory=True)!r})"
        forms = list(dict.fromkeys([f"--{name}", f"--{name.replace('_', '-')}"]))
        is_flag = field.annotation is bool
        is_list = _is_sequence(field.annotation)
        parser.add_argument(
            *forms,
            dest=name,
            action="extend" if is_list else "store",
            nargs="+" if is_list else ("?" if is_flag else None),
            const="true" if is_flag else None,
            default=argparse.SUPPRESS,
            help=text + default.replace("%", "%%"),
        )
    return vars(parser.parse_args(list(arguments)))


def validated(model: type[ModelT], values: dict[str, Any]) -> ModelT:
    """Validates `values`; the value of a mapping field may be a JSON text.

    Raises:
        ConfigurationError: a value is wrong; the message lists each key with its problem.
    """
    decoded = {name: _decoded(model, name, value) for name, value in values.items()}
    try:
        return model.model_validate(decoded)
    except ValidationError as error:
        raise ConfigurationError(describe(error, prefix="--")) from error


def describe(error: ValidationError, *, prefix: str = "") -> str:
    """Formats a pydantic error in one line: `key: message; key: message`."""
    parts: list[str] = []
    for detail in error.errors(include_url=False, include_context=False):
        where = ".".join(str(part) for part in detail["loc"])
        parts.append(f"{prefix}{where}: {detail['msg']}" if where else detail["msg"])
    return "; ".join(parts)


def _is_sequence(annotation: object) -> bool:
    return str(annotation).startswith(("tuple[", "list[")) or any(_is_sequence(part) for part in get_args(annotation))


def _decoded(model: type[BaseModel], name: str, value: Any) -> Any:
    field = model.model_fields.get(name)
    if field is None or not isinstance(value, str) or "dict[" not in str(field.annotation):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise ConfigurationError(f"--{name}: must be a JSON object: {error}") from error
