"""Command lines made from pydantic models: one field, one flag, one description.

Called by every program of this package. Guarantees that a flag exists in an underscore and a dash form, that
a boolean may stand bare, that the last value wins, and that an unknown flag or a wrong value ends the
program with exit code 2 and a message naming the flag. (Upstream Kaito parses unknown flags and drops them:
a typo is silently ignored.)
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
    """Read `arguments` into `model`.

    Raises:
        ConfigurationError: unknown flag, missing required flag or a value of the wrong type.
        SystemExit: `--help` was asked for.
    """
    return validated(model, raw_values(model, arguments, program=program))


def raw_values(model: type[BaseModel], arguments: Sequence[str], *, program: str) -> dict[str, Any]:
    """Only the flags that were given, unvalidated, by field name."""
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
    """`values` as `model`; strings holding JSON are accepted for mapping fields.

    Raises:
        ConfigurationError: names each wrong key and what is wrong with it.
    """
    decoded = {name: _decoded(model, name, value) for name, value in values.items()}
    try:
        return model.model_validate(decoded)
    except ValidationError as error:
        raise ConfigurationError(describe(error, prefix="--")) from error


def describe(error: ValidationError, *, prefix: str = "") -> str:
    """A pydantic error as one line: `key: message; key: message`."""
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
        raise ConfigurationError(f"--{name}: not a JSON object: {error}") from error
