"""Reads the protobuf bodies that kubectl's typed commands send (`create configmap`, `auth can-i`); writes none.

Field numbers come from the `generated.proto` files of the Kubernetes release (`data/protobuf-fields.json`). The
envelope is that of "Kubernetes API concepts", section "Kubernetes Protobuf encoding": four magic bytes and a
`runtime.Unknown`.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import TypeAlias

from kaito.apiserver.registry.builtin_schemas import definition_name
from kaito.apiserver.registry.resources import group_of, version_of
from kaito.apiserver.wire import Json, Object, decode

MAGIC = b"k8s\x00"
MEDIA_TYPE = "application/vnd.kubernetes.protobuf"

Field: TypeAlias = tuple[str, str, str]
"""Name, type and mode of a field."""
Value: TypeAlias = int | bytes


@cache
def _fields() -> dict[str, dict[int, Field]]:
    listed: dict[str, list[list[Json]]] = decode(
        (files("kaito.apiserver") / "data" / "protobuf-fields.json").read_bytes()
    )
    return {
        message: {int(number): (str(name), str(kind), str(mode)) for number, name, kind, mode in fields}
        for message, fields in listed.items()
    }


def decode_protobuf(body: bytes) -> Object:
    """Returns the object in a protobuf body; raises `ValueError` when it is not one, or not of a built-in kind."""
    if not body.startswith(MAGIC):
        raise ValueError("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    unknown = dict(_parts(body[len(MAGIC) :]))
    about = dict(_parts(_bytes(unknown.get(1, b""))))
    api_version, kind = _bytes(about.get(1, b"")).decode(), _bytes(about.get(2, b"")).decode()
    message = definition_name(group_of(api_version), version_of(api_version), kind)
    if message is None or message not in _fields():
        raise ValueError(f"no protobuf message is known for {api_version}, Kind={kind}")
    return {"apiVersion": api_version, "kind": kind, **_message(_bytes(unknown.get(2, b"")), message)}


def _bytes(value: Value) -> bytes:
    if isinstance(value, int):
        raise ValueError("protobuf: wrong wire type")  # noqa: TRY004 - a malformed body, not a programming error
    return value


def _varint(data: bytes, position: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        if position >= len(data):
            raise ValueError("unexpected EOF")
        byte = data[position]
        result |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return result, position


def _parts(data: bytes) -> Iterator[tuple[int, Value]]:
    """Yields field numbers and raw values of a message."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        match tag & 7:
            case 0:
                value, position = _varint(data, position)
                yield tag >> 3, value
            case 1 | 5 as width:
                size = 8 if width == 1 else 4
                yield tag >> 3, data[position : position + size]
                position += size
            case 2:
                size, position = _varint(data, position)
                yield tag >> 3, data[position : position + size]
                position += size
            case other:
                raise ValueError(f"proto: illegal wireType {other}")


def _message(data: bytes, message: str) -> Object:
    fields = _fields()[message]
    found: Object = {}
    for number, raw in _parts(data):
        if number not in fields:
            continue
        name, kind, mode = fields[number]
        match mode:
            case "repeated":
                found.setdefault(name, []).append(_value(raw, kind))
            case "map":
                entry = dict(_parts(_bytes(raw)))
                empty: Value = 0 if kind in {"int32", "int64", "bool"} else b""
                found.setdefault(name, {})[_bytes(entry.get(1, b"")).decode()] = _value(entry.get(2, empty), kind)
            case "inline":
                found.update(_message(_bytes(raw), kind))
            case _:
                value = _value(raw, kind)
                if value is not None and value != "":
                    found[name] = value
    return found


def _value(raw: Value, kind: str) -> Json:
    if kind in _SCALARS:
        return _scalar(raw, kind)
    data = _bytes(raw)
    inner = dict(_parts(data)) if kind in {"time", "microtime", "quantity", "intstr", "raw"} else {}
    match kind:
        case "string":
            return data.decode()
        case "bytes":
            return base64.b64encode(data).decode()
        case "double":
            return struct.unpack("<d", data)[0]
        case "time" | "microtime":
            return _time(inner, micro=kind == "microtime")
        case "quantity":
            return _bytes(inner.get(1, b"")).decode()
        case "intstr":
            text = _bytes(inner.get(3, b"")).decode()
            return text if inner.get(1) == 1 else _scalar(inner.get(2, 0), "int32")
        case "raw":
            content = _bytes(inner.get(1, b""))
            return decode(content) if content else None
        case _:
            return _message(data, kind)


_SCALARS = frozenset({"int32", "int64", "bool", "uint32", "uint64"})


def _scalar(raw: Value, kind: str) -> Json:
    if not isinstance(raw, int):
        raise ValueError("protobuf: wrong wire type")  # noqa: TRY004 - a malformed body, not a programming error
    if kind == "bool":
        return bool(raw)
    signed = kind in {"int32", "int64"} and raw >= 1 << 63
    return raw - (1 << 64) if signed else raw


def _time(parts: dict[int, Value], *, micro: bool) -> str | None:
    seconds = _scalar(parts.get(1, 0), "int64")
    nanos = _scalar(parts.get(2, 0), "int32")
    if seconds <= 0:
        return None
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + (f".{nanos // 1000:06d}Z" if micro else "Z")
