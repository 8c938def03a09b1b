"""Reads values of JSON text by path, cuts paths out of it, and splits a stream into lines, with minimal decoding.

The store keeps objects as text; predicates and the reflector read single values of it without building objects. Paths
are the API's dotted names: `metadata.managedFields`, `status.readyReplicas`; a name with dots stands in brackets,
`metadata.annotations[example.com/key]`, and `[*]` means every element of a list or map.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias, cast

import msgspec

Raw: TypeAlias = msgspec.Raw
Path: TypeAlias = tuple[str, ...]
Cuts: TypeAlias = "dict[str, Cuts | None]"
"""Paths to drop as a tree; None marks the end of a path."""

EVERY: Final = "*"

LINE_LIMIT_BYTES: Final = 16 * 1024 * 1024
"""Longest line of a watch. etcd rejects objects above 1.5 MiB by default; ten times that is a broken stream."""

_FIELDS = msgspec.json.Decoder(dict[str, Raw])
_ELEMENTS = msgspec.json.Decoder(list[Raw])
_ANY = msgspec.json.Decoder()
_TOKEN = re.compile(r"\[([^\]]+)\]|([^.\[\]]+)|(\.)")


def parse_path(text: str) -> Path:
    """The names of a dotted path.

    Raises:
        ValueError: empty, or brackets that do not close.
    """
    names: list[str] = []
    position = 0
    for token in _TOKEN.finditer(text):
        if token.start() != position:
            break
        position = token.end()
        name = token.group(1) or token.group(2)
        if name:
            names.append(name)
    if position != len(text) or not names:
        message = f"not a field path: {text!r} (write it as spec.replicas or metadata.annotations[example.com/key])"
        raise ValueError(message)
    return tuple(names)


def cuts(paths: Mapping[Path, None] | tuple[Path, ...]) -> Cuts:
    """The tree of paths to drop; a path below another dropped one adds nothing."""
    tree: Cuts = {}
    for path in sorted(paths, key=len):
        level = tree
        for name in path[:-1]:
            below = level.setdefault(name, {})
            if below is None:
                break
            level = below
        else:
            level[path[-1]] = None
    return tree


def fields_of(text: bytes | Raw) -> dict[str, Raw]:
    """The fields of a JSON object, each as text.

    Raises:
        msgspec.DecodeError: not JSON, or not an object.
    """
    return _FIELDS.decode(text)


def cut(fields: dict[str, Raw], tree: Cuts) -> None:
    """Drops the tree's paths from the fields, in place. Absent fields and fields of another structure are left
    alone."""
    for name, below in tree.items():
        for key in list(fields) if name == EVERY else (name,):
            value = fields.get(key)
            if value is None:
                continue
            if below is None:
                del fields[key]
            else:
                fields[key] = _cut_below(value, below)


def _cut_below(value: Raw, tree: Cuts) -> Raw:
    text = bytes(value)
    if text[:1] == b"{":
        fields = _FIELDS.decode(text)
        cut(fields, tree)
        return Raw(msgspec.json.encode(fields))
    if text[:1] == b"[" and EVERY in tree:
        below = tree[EVERY]
        elements = [] if below is None else [_cut_below(element, below) for element in _ELEMENTS.decode(text)]
        return Raw(msgspec.json.encode(elements))
    return value


def value_text(text: bytes | Raw, path: Path) -> bytes | None:
    """The JSON text at the path, or None when nothing is there. A list element is named by its position."""
    current: bytes | Raw = text
    for name in path:
        shape = bytes(current)[:1]
        if shape == b"{":
            found = _FIELDS.decode(current).get(name)
        elif shape == b"[" and name.isdigit():
            elements = _ELEMENTS.decode(current)
            found = elements[int(name)] if int(name) < len(elements) else None
        else:
            found = None
        if found is None:
            return None
        current = found
    return bytes(current)


def same_value(left: bytes | None, right: bytes | None) -> bool:
    """Whether two texts encode the same JSON value, regardless of the order of fields."""
    if left == right:
        return True
    if left is None or right is None:
        return (left or b"null") == (right or b"null")
    return cast(object, _ANY.decode(left)) == cast(object, _ANY.decode(right))


def shown(text: bytes) -> str:
    """The loggable part of an unexpected text: of a proxy's page, but not of an object, which may be a Secret."""
    if text.lstrip()[:1] in {b"{", b"["}:
        return f"{len(text)} bytes of JSON"
    return repr(text[:100].decode(errors="replace"))


class LineTooLong(ValueError):
    """A line of the stream is longer than the limit."""


class LineSplitter:
    """Cuts a byte stream into lines, whatever the size of its chunks.

    Bytes are never decoded here, so a multi-byte character on a chunk boundary is safe: a newline byte cannot be part
    of another character in UTF-8.
    """

    __slots__ = ("_limit", "_parts", "_size")

    def __init__(self, limit: int = LINE_LIMIT_BYTES) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The lines this chunk completes, without their newline; blank lines are skipped.

        Raises:
            LineTooLong: a line exceeds the limit. The splitter cannot be used after that.
        """
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            line = chunk[start:end]
            start = end + 1
            if self._parts:
                line = b"".join([*self._parts, line])
                self._parts.clear()
                self._size = 0
            self._check(len(line))
            if line.strip():
                yield line
        if start < len(chunk):
            rest = chunk[start:]
            self._size += len(rest)
            self._check(self._size)
            self._parts.append(rest)

    def rest(self) -> bytes:
        """The bytes after the last newline."""
        return b"".join(self._parts).strip()

    def _check(self, size: int) -> None:
        if size > self._limit:
            message = f"a line of the watch stream exceeds {self._limit} bytes"
            raise LineTooLong(message)
