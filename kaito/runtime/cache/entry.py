"""One cached object: its JSON text without the dropped paths, and a small header that needs no decoding.

The reflector creates entries, the store indexes them, readers decode them. Every decode builds a new object, so that a
caller's changes cannot affect the cache or another caller. Labels, owners and versions are read from the header, so
selecting objects decodes only the selected ones.
"""

import sys
from functools import lru_cache
from typing import Any, Final, TypeVar, cast

import msgspec
import pydantic

from kaito.runtime.cache.jsontext import Cuts, Raw, cut, fields_of, shown
from kaito.runtime.cache.options import Transform
from kaito.runtime.errors import KaitoRuntimeError, UnreadableObject
from kaito.runtime.logging import get_logger
from kaito.runtime.meta import ObjectKey, ObjectMeta, Resource

R = TypeVar("R", bound=Resource)

_IDENTITY: Final = ("apiVersion", "kind")
"""Never stored: lists omit them, watches send them, and the object's class defines them."""


class Owner(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """An owner reference in the header."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None

    @property
    def group(self) -> str:
        """The owner's API group; versions of one kind are the same owner."""
        return self.api_version.rpartition("/")[0]


class _Manager(msgspec.Struct, rename="camel", gc=False):
    """An entry of the managed fields."""

    manager: str = ""
    operation: str = ""
    subresource: str = ""


class _Metadata(msgspec.Struct, rename="camel", gc=False):
    name: str
    namespace: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    generation: int | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] | None = None
    owner_references: tuple[Owner, ...] | None = None
    managed_fields: list[_Manager] | None = None


class Header(msgspec.Struct, frozen=True, gc=False):
    """The fields of a cached object that are read without decoding it."""

    key: ObjectKey
    uid: str
    resource_version: str
    version: int
    """`resource_version` as a number, -1 when the server's versions are not numbers."""
    generation: int
    deletion_timestamp: str
    """RFC 3339, empty while the object is not being deleted."""
    labels: dict[str, str]
    owners: tuple[Owner, ...]
    appliers: frozenset[str] = frozenset()
    """Field managers that have applied fields, except those of subresources; the managed fields are not stored."""

    @property
    def deleting(self) -> bool:
        """Whether deletion was requested and finalizers (or a grace period) keep the object."""
        return bool(self.deletion_timestamp)


class Entry(msgspec.Struct, frozen=True, gc=False):
    """An object in the store."""

    header: Header
    text: bytes
    """JSON without `apiVersion`, `kind` and the dropped paths."""


class Undecodable(KaitoRuntimeError):
    """The received data is not an object with a name."""


_METADATA = msgspec.json.Decoder(_Metadata)
_PLAIN = msgspec.json.Decoder(dict[str, Any])
_UNTRANSFORMED: Final = b"{}"
"""The text of an object whose transform failed: it exists, but none of its fields may be cached."""

_log = get_logger(__name__)
_NO_APPLIERS: Final[frozenset[str]] = frozenset()
_NO_LABELS: dict[str, str] = {}


def version_number(resource_version: str) -> int:
    """A resourceVersion as a number, -1 if it is not one (old or foreign servers; Kubernetes guarantees numbers since
    1.35)."""
    return int(resource_version) if resource_version.isascii() and resource_version.isdigit() else -1


def make_entry(
    text: bytes | Raw, drop: Cuts, *, metadata_only: bool = False, transform: Transform | None = None
) -> Entry:
    """Creates the entry of a received object.

    Raises:
        Undecodable: not a JSON object, or one without `metadata.name`.
    """
    try:
        fields = fields_of(text)
        meta = _METADATA.decode(fields["metadata"])
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError) as error:
        message = f"not an object with metadata: {shown(bytes(text))}: {error}"
        raise Undecodable(message) from error
    if metadata_only:
        fields = {"metadata": fields["metadata"]}
    for name in _IDENTITY:
        fields.pop(name, None)
    cut(fields, drop)
    # The encoder's buffer is a fifth too large on average; a copy has the exact size.
    stored = bytes(memoryview(msgspec.json.encode(fields)))
    return Entry(_header(meta), stored) if transform is None else _transformed(_header(meta), stored, transform)


def _transformed(header: Header, text: bytes, transform: Transform) -> Entry:
    """Creates the entry of the transform's result."""
    try:
        stored = msgspec.json.encode(dict(transform(_PLAIN.decode(text))))
        changed = _header(_METADATA.decode(fields_of(stored)["metadata"]))
    except Exception as error:  # noqa: BLE001 -- foreign code: the object must stay known, and the watch alive
        _log.error("transform failed, the object cannot be read", object=str(header.key), error=type(error).__name__)
        return Entry(header, _UNTRANSFORMED)
    same = (changed.key, changed.uid, changed.resource_version) == (header.key, header.uid, header.resource_version)
    if not same:
        _log.error("transform changed the identity, the object cannot be read", object=str(header.key))
    return Entry(changed, bytes(memoryview(stored))) if same else Entry(header, _UNTRANSFORMED)


def _header(meta: _Metadata) -> Header:
    resource_version = meta.resource_version or ""
    return Header(
        key=ObjectKey(sys.intern(meta.namespace or ""), meta.name),
        uid=meta.uid or "",
        resource_version=resource_version,
        version=version_number(resource_version),
        generation=meta.generation or 0,
        deletion_timestamp=meta.deletion_timestamp or "",
        labels={sys.intern(name): value for name, value in meta.labels.items()} if meta.labels else _NO_LABELS,
        owners=tuple(map(_lean, meta.owner_references)) if meta.owner_references else (),
        appliers=_appliers(meta.managed_fields) if meta.managed_fields else _NO_APPLIERS,
    )


def _appliers(entries: list[_Manager]) -> frozenset[str]:
    """The managers that have applied fields; equal sets are one object, which many objects share."""
    names = tuple(each.manager for each in entries if each.operation == "Apply" and not each.subresource)
    return _shared(names) if names else _NO_APPLIERS


@lru_cache(maxsize=256)
def _shared(names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(names)


def _lean(owner: Owner) -> Owner:
    """The same owner with interned strings, which many objects share."""
    return Owner(sys.intern(owner.api_version), sys.intern(owner.kind), owner.name, owner.uid, owner.controller)


class _Partial(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(defer_build=True)

    metadata: ObjectMeta


def decode(entry: Entry, kind: type[R], *, metadata_only: bool = False) -> R:
    """A new object of the kind, private to the caller.

    Of a metadata-only entry only `metadata` is there: reading another field of the object raises `AttributeError`
    rather than show a default that the cluster does not have.

    Raises:
        UnreadableObject: the object does not fit the model.
    """
    if entry.text == _UNTRANSFORMED:
        raise cannot_be_read(kind, entry, ": the transform= of its Cached(...) failed on it")
    try:
        if not metadata_only:
            return kind.from_json(entry.text)
        metadata = _Partial.model_validate_json(entry.text).metadata
    except pydantic.ValidationError as error:
        fields = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        why = f" does not fit its model: {fields}"
        raise cannot_be_read(kind, entry, why) from None  # the cause would print values, perhaps those of a Secret
    return _only_metadata(kind, metadata)


def cannot_be_read(kind: type[Resource], entry: Entry, why: str) -> UnreadableObject:
    """The error of an entry; `why` follows its name."""
    header = entry.header
    owners = [owner.uid for owner in header.owners]
    message = f"{kind.kind} {header.key}{why}"
    return UnreadableObject(message, key=str(header.key), resource_version=header.resource_version, owners=owners)


def _only_metadata(kind: type[R], metadata: ObjectMeta) -> R:
    obj = cast("R", kind.model_construct(_fields_set={"metadata"}, metadata=metadata))  # pyright: ignore[reportUnnecessaryCast] -- mypy loses R
    for name in kind.model_fields:
        if name != "metadata":
            vars(obj).pop(name, None)
    return obj
