"""Command-line flags in Go's form, generated from pydantic settings.

A program declares its settings as pydantic models and calls `FlagParser.add_settings` for each model: type, default and
help of a flag come from the field, so that a setting is described in one place. `FlagParser.settings` builds the model
from the parsed command line.

    from pydantic import BaseModel, Field

    class MemcachedSettings(BaseModel):
        resync_interval_seconds: float = Field(default=600.0, description="interval of a full resync")

    flags = FlagParser(prog="memcached-operator", description="Runs Memcached clusters.")
    flags.add_manager_settings()
    flags.add_settings(MemcachedSettings)
    arguments = flags.parse_args(["--resync-interval=15m", "--leader-elect=false"])
    settings = flags.settings(MemcachedSettings, arguments)
    manager_settings = flags.manager_settings(arguments)

Booleans are written `--flag`, `--flag=true` or `--flag=false`, durations `90s`, `15m` or `1h30m`. The flags of a
manager have controller-runtime's names, such as `--metrics-bind-address`.
"""

import argparse
import re
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, Final, Literal, NoReturn, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from kaito.runtime.manager.settings import Settings

ModelT = TypeVar("ModelT", bound=BaseModel)

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SECONDS_SUFFIX = "_seconds"

MANAGER_FIELDS: Final = (
    "metrics_bind_address",
    "metrics_secure",
    "metrics_cert_dir",
    "health_probe_bind_address",
    "debug_endpoints",
    "leader_elect",
    "leader_election_namespace",
    "kubeconfig",
    "context",
    "kube_client_qps",
    "kube_client_burst",
    "tracing_endpoint",
    "log_format",
    "log_level",
)
"""Fields of `Settings` that `add_manager_settings` offers as flags."""

MANAGER_FLAG_NAMES: Final[Mapping[str, str]] = {"metrics_cert_dir": "--metrics-cert-path"}
"""Flags of a manager whose name differs from the field's: controller-runtime's name."""


def boolean(text: str) -> bool:
    """Parses `true` and `false` as Go's flag package does.

    Raises:
        argparse.ArgumentTypeError: the text is not a boolean.
    """
    if text.lower() in {"true", "t", "1"}:
        return True
    if text.lower() in {"false", "f", "0"}:
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def duration(text: str) -> float:
    """Returns the seconds of a Go duration such as `15m` or `1h30m`; a number without a unit is seconds.

    Raises:
        argparse.ArgumentTypeError: the text is not a duration.
    """
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 90s, 15m or 1h30m")
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)


def comma_separated(text: str) -> tuple[str, ...]:
    """Splits `a,b` into its parts; spaces around a part and empty parts are dropped."""
    return tuple(filter(None, (part.strip() for part in text.split(","))))


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the default of every flag that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, "", ()) else super()._get_help_string(action)


class FlagParser(argparse.ArgumentParser):
    """An argument parser that generates flags from settings models; flags cannot be abbreviated."""

    def __init__(self, *, prog: str, description: str) -> None:
        """Creates a parser whose help shows every default."""
        super().__init__(prog=prog, description=description, formatter_class=_HelpFormatter, allow_abbrev=False)
        self._flags: dict[type[BaseModel], dict[str, str]] = {}
        self._undescribed: list[tuple[argparse.Action, type[BaseModel]]] = []

    def format_help(self) -> str:
        """Returns the help with the docstrings of fields, which are read from the source now: it takes a while."""
        self.describe()
        return super().format_help()

    def describe(self) -> None:
        """Sets the help of flags whose field has a docstring instead of a description."""
        from kaito.runtime.crd.docstrings import attribute_docstrings

        for action, model in self._undescribed:
            action.help = _help(attribute_docstrings(model).get(action.dest, ""))
        self._undescribed.clear()

    def add_settings(
        self,
        model: type[BaseModel],
        *,
        fields: Iterable[str] | None = None,
        names: Mapping[str, str] | None = None,
        defaults: Mapping[str, object] | None = None,
    ) -> None:
        """Adds one flag for each field of a settings model.

        A flag is named after its field; a field `timeout_seconds` becomes the duration `--timeout`. The help is the
        first sentence of the field's description, or of its docstring.

        Args:
            model: the settings.
            fields: fields to offer; all of them by default.
            names: flags whose name differs from the field's, by field.
            defaults: defaults that differ from the model's, by field; for example from environment variables.
        """
        flags = self._flags.setdefault(model, {})
        for field in model.model_fields if fields is None else fields:
            info = model.model_fields[field]
            default = (defaults or {}).get(field, info.get_default(call_default_factory=True))
            flags[field] = (names or {}).get(field, flag_name(field))
            action = self.add_argument(
                flags[field],
                dest=field,
                default=default,
                help=_help(info.description or ""),
                **_conversion(field, info.annotation),
            )
            if not action.help:
                self._undescribed.append((action, model))

    def add_switch(self, name: str, *, default: bool, help: str) -> None:  # noqa: A002 - argparse's word
        """Adds a boolean that is not a field of any settings."""
        self.add_argument(name, type=boolean, nargs="?", const=True, default=default, metavar="BOOL", help=help)

    def settings(self, model: type[ModelT], arguments: argparse.Namespace, **values: Any) -> ModelT:
        """Builds the settings from parsed arguments; a wrong value ends the program with status 2 and a message.

        Args:
            model: settings whose fields `add_settings` has added.
            arguments: what `parse_args` returned.
            values: fields that have no flag, or whose value was computed.
        """
        flags = self._flags.get(model, {})
        given = {field: getattr(arguments, field) for field in flags}
        try:
            return model(**(given | values))
        except ValidationError as error:
            self._fail(error, flags)

    def add_manager_settings(self) -> None:
        """Adds the standard flags of a manager; `manager_settings` reads them."""
        self.add_settings(Settings, fields=MANAGER_FIELDS, names=MANAGER_FLAG_NAMES)

    def manager_settings(self, arguments: argparse.Namespace, **values: Any) -> Settings:
        """Builds the manager's settings from parsed arguments; `values` are fields without a flag."""
        return self.settings(Settings, arguments, **values)

    def _fail(self, error: ValidationError, flags: Mapping[str, str]) -> NoReturn:
        problems: list[str] = []
        for detail in error.errors(include_url=False, include_context=False):
            where = ".".join(str(part) for part in detail["loc"])
            problems.append(
                ": ".join(filter(None, (flags.get(where, where), detail["msg"].removeprefix("Value error, "))))
            )
        self.error("; ".join(problems))


def flag_name(field: str) -> str:
    """Returns the name of a field's flag: dashes for underscores, without the suffix `_seconds`."""
    return f"--{field.removesuffix(_SECONDS_SUFFIX).replace('_', '-')}"


def _help(description: str) -> str:
    """Returns the first sentence of a description in the form of a flag's help: lower case, without a period."""
    sentence = re.split(r"(?<=\.)\s", " ".join(description.split()), maxsplit=1)[0].removesuffix(".")
    sentence = sentence.replace("`", "").replace("%", "%%")
    is_acronym = sentence[1:2].isupper()
    return sentence if is_acronym else sentence[:1].lower() + sentence[1:]


def _conversion(field: str, annotation: Any) -> dict[str, Any]:
    """Returns the arguments of `add_argument` that convert the text of a flag to the field's type."""
    kind = _without_none(annotation)
    if kind is bool:
        return {"type": boolean, "nargs": "?", "const": True, "metavar": "BOOL"}
    if kind is float and field.endswith(_SECONDS_SUFFIX):
        return {"type": duration, "metavar": "DURATION"}
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind)}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"type": kind, "choices": list(kind)}
    if get_origin(kind) is tuple:
        return {"type": comma_separated, "metavar": "A,B"}
    converters: Mapping[Any, Callable[[str], Any]] = {int: int, float: float, Path: Path}
    return {"type": converters.get(kind, str)}


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) not in {Union, UnionType}:
        return annotation
    (kind,) = (part for part in get_args(annotation) if part is not type(None))
    return kind
