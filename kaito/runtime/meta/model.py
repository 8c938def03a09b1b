"""The pydantic base class of API types: camelCase in JSON, snake_case in Python, frozen, lossless.

Every struct of every kind derives from `Model`. It guarantees that unknown fields are preserved by a read-modify-write,
and that `to_dict` emits only the fields that were set, as server-side apply requires: an omitted field is not owned.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Self, cast, get_origin

from pydantic import BaseModel, ConfigDict, PlainSerializer, ValidationError, WithJsonSchema
from pydantic_core import PydanticUndefined, from_json

_INITIALISMS = {
    "id": "ID",
    "ids": "IDs",
    "ip": "IP",
    "ips": "IPs",
    "url": "URL",
    "uri": "URI",
    "uuid": "UUID",
    "cidr": "CIDR",
    "cidrs": "CIDRs",
    "pid": "PID",
    "ipc": "IPC",
}
"""Words in upper case in field names unless they come first (Kubernetes API conventions, "Naming conventions")."""

_EMPTY = (list, dict, set)


def wire_name(name: str) -> str:
    """Returns the JSON name of a field: `pod_ip` is `podIP`, `provider_id` is `providerID`, `from_` is `from`."""
    first, *rest = name.strip("_").split("_")
    return first + "".join(_INITIALISMS.get(word) or word[:1].upper() + word[1:] for word in rest)


def format_time(moment: datetime) -> str:
    """Formats as RFC 3339 in UTC with whole seconds, the form of `metav1.Time`."""
    return _utc(moment).isoformat(timespec="seconds") + "Z"


def format_micro_time(moment: datetime) -> str:
    """Formats as RFC 3339 in UTC with microseconds, the form of `metav1.MicroTime` (leases, events)."""
    return _utc(moment).isoformat(timespec="microseconds") + "Z"


def _utc(moment: datetime) -> datetime:
    """Converts to UTC without a time zone; times that UTC would move out of the years 1 to 9999 keep their zone."""
    try:
        return moment.astimezone(UTC).replace(tzinfo=None)
    except OverflowError:
        return moment.replace(tzinfo=None)


Time = Annotated[datetime, PlainSerializer(format_time, return_type=str, when_used="always")]
"""Time with a resolution of one second (`metav1.Time`)."""

MicroTime = Annotated[datetime, PlainSerializer(format_micro_time, return_type=str, when_used="always")]
"""Time with a resolution of one microsecond (`metav1.MicroTime`)."""


def format_timestamp(moment: datetime) -> str:
    """Formats as RFC 3339 in UTC, with microseconds only if the moment has some."""
    return _utc(moment).isoformat() + "Z"


Timestamp = Annotated[datetime, PlainSerializer(format_timestamp, return_type=str, when_used="always")]
"""Time of a foreign kind, whose resolution is not known: read and written with microseconds."""

IntOrString = Annotated[
    int | str,
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}),
]
"""A number or a text such as `25%` or the name of a port (`intstr.IntOrString`)."""


def without_nulls(value: Any) -> Any:
    """Removes object members that are null from a JSON value."""
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        return {name: without_nulls(member) for name, member in members.items() if member is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]  # pyright: ignore[reportUnknownVariableType] -- JSON
    return value


class Model(BaseModel):
    """A struct of the Kubernetes API: frozen, camelCase aliases, unknown fields kept."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        alias_generator=wire_name,
        populate_by_name=True,
        extra="allow",
        frozen=True,
        ser_json_inf_nan="strings",
        defer_build=True,  # schemas of unused kinds are not built, which keeps import time low
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **_: object) -> None:
        """Creates empty defaults by their types: pydantic would deep-copy them, which takes ten times longer.

        A pod omits about a hundred such fields, and some structs, whose copy takes up to 100 µs. This runs before the
        schema is built, see `defer_build`.
        """
        for field in cls.model_fields.values():
            if _is_empty(field.default):
                field.default_factory, field.default = type(field.default), PydanticUndefined
            elif get_origin(field.default_factory) in _EMPTY:  # list[str] and the like: slower to call than list
                field.default_factory = get_origin(field.default_factory)

    @classmethod
    def from_json(cls, text: bytes | str) -> Self:
        """Parses the JSON form.

        Null means absent, as for the API server. Go servers write null for empty lists (conditions of a new
        CustomResourceDefinition), so invalid input is parsed once more without nulls; valid input has no additional
        cost.

        Raises:
            pydantic.ValidationError: The input is invalid without nulls, too.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            if not any(problem["input"] is None for problem in error.errors(include_url=False)):
                raise
        return cls.model_validate(without_nulls(from_json(text)))

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form as a dict, with the fields that were set, without nulls."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)

    def evolve(self, **changes: Any) -> Self:
        """Returns a validated copy with some fields replaced (Python names).

        Missing fields (of an object cached as metadata only) are missing in the copy unless they are replaced.
        """
        fields = type(self).model_fields  # pydantic computes it at each access
        values = {name: getattr(self, name) for name in self.model_fields_set if name in fields}
        copy = type(self)(**{**(self.model_extra or {}), **values, **changes})
        if is_partial(self):
            for name in fields.keys() - vars(self).keys() - changes.keys():
                vars(copy).pop(name, None)
        return copy


def _is_empty(default: object) -> bool:
    """Whether the type of a default, called without arguments, returns an equal value."""
    if isinstance(default, Model):
        return not default.model_fields_set
    return type(default) in _EMPTY and not default


def is_partial(model: Model) -> bool:
    """Whether fields are missing, because only the metadata of the object is cached."""
    return len(vars(model)) < len(type(model).model_fields)
