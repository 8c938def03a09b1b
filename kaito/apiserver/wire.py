"""HTTP requests and responses without a socket, and their JSON.

`ApiServer.handle` takes an `HttpRequest` and returns an `HttpResponse`; both the aiohttp adapter and the in-process
transports of tests use them. Objects are plain `dict`s as decoded from JSON; stored ones are shared and never mutated.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeGuard

import msgspec
import yaml

Json: TypeAlias = Any
"""A decoded JSON value. `Any`, because a recursive union would make every access a cast."""
Object: TypeAlias = dict[str, Any]
"""A decoded JSON object."""

JSON_TYPE = "application/json"
YAML_TYPES = frozenset({"application/yaml", "application/apply-patch+yaml", "text/yaml"})

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


def encode(value: Json) -> bytes:
    """Returns the JSON bytes of a value."""
    return _encoder.encode(value)


def decode(data: bytes) -> Json:
    """Returns the value of JSON bytes; raises `ValueError` when they are not JSON."""
    return _decoder.decode(data)


class _ManifestLoader(yaml.SafeLoader):
    """YAML without dates: Kubernetes has no such type, `2024-01-01` is a string."""


_ManifestLoader.yaml_implicit_resolvers = {
    letter: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def decode_yaml(data: bytes) -> Json:
    """Returns the value of a YAML (or JSON) document; raises `ValueError` when it is neither."""
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError:
        pass
    try:
        return yaml.load(data, Loader=_ManifestLoader)  # noqa: S506 - a SafeLoader without the date resolver
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request. Header names are lower case; `query` keeps order and repeats."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""

    def param(self, name: str, default: str = "") -> str:
        """Returns the first value of a query parameter."""
        return next((value for key, value in self.query if key == name), default)

    def flag(self, name: str) -> bool:
        """Returns whether a query parameter is set to a true value, as Go's `strconv.ParseBool` reads it."""
        return self.param(name) in {"1", "t", "T", "true", "TRUE", "True"}


@dataclass(slots=True)
class HttpResponse:
    """One response. An iterator as body is a stream (a watch); the caller closes it by `aclose()`."""

    status: int
    headers: dict[str, str]
    body: bytes | AsyncIterator[bytes]


def json_response(
    value: Json, status: int = 200, headers: Mapping[str, str] | None = None, content_type: str = JSON_TYPE
) -> HttpResponse:
    """Returns a response with a JSON body."""
    return HttpResponse(status, {"content-type": content_type, **(headers or {})}, encode(value))


def raw_response(body: bytes, status: int = 200, content_type: str = JSON_TYPE) -> HttpResponse:
    """Returns a response whose body is encoded already."""
    return HttpResponse(status, {"content-type": content_type}, body)


def text_response(text: str, status: int = 200) -> HttpResponse:
    """Returns a plain-text response."""
    return HttpResponse(status, {"content-type": "text/plain; charset=utf-8"}, text.encode())


def is_object(value: Json) -> TypeGuard[Object]:
    """Returns whether a JSON value is an object."""
    return isinstance(value, dict)


def is_list(value: Json) -> TypeGuard[list[Json]]:
    """Returns whether a JSON value is a list."""
    return isinstance(value, list)


_NESTED = (dict, list)
"""A tuple that exists: to write a union here would make one for each value."""


def is_nested(value: Json) -> bool:
    """Returns whether a JSON value is an object or a list."""
    return isinstance(value, _NESTED)


def copy_json(value: Json) -> Json:
    """Returns a deep copy of a JSON value (many times faster than `copy.deepcopy`)."""
    return msgspec.to_builtins(value)


def lookup(value: Json, path: Iterable[str]) -> Json:
    """Returns the value at a path of keys, or None where the path ends early."""
    for key in path:
        if not is_object(value):
            return None
        value = value.get(key)
    return value


def part(value: Json, *path: str) -> Object:
    """Returns the object at a path of keys; an empty one, not attached to anything, where there is none."""
    found = lookup(value, path)
    return found if is_object(found) else {}
