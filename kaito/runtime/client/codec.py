"""Bytes to objects and back: the only place where the client reads or writes JSON bodies.

Objects are validated straight from bytes (through a dict costs twice as much), lists page by page with the event loop
let go between slices, and what pydantic says about a misfit becomes `UnreadableObject`.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import msgspec
from pydantic import BaseModel, ValidationError

from kaito.runtime.errors import ConfigurationError, UnreadableObject
from kaito.runtime.meta import ObjectKey, Resource
from kaito.runtime.meta.model import is_partial

R = TypeVar("R", bound=Resource)

_SLICE = 50
"""Objects decoded before other tasks run: about 5 ms of pods."""

_SERVER_OWNED = frozenset({"managedFields", "creationTimestamp", "deletionTimestamp", "generation", "selfLink"})
"""Metadata the server writes; naming it in an apply request is an error or means nothing."""


class ResourceList(list[R], Generic[R]):
    """Objects of one kind as they were at `resource_version`."""

    def __init__(self, objects: list[R] | None = None, *, resource_version: str = "") -> None:
        super().__init__(objects or [])
        self.resource_version = resource_version
        self.unreadable: list[UnreadableObject] = []
        """The objects that are left out because they do not fit their model: their keys, and why."""

    def add_decoded(self, decode: Callable[[], R], *, skip: bool) -> None:
        """Add what `decode` makes; with `skip`, an object that does not fit its model goes to `unreadable`.

        Raises:
            UnreadableObject: the object does not fit its model, without `skip`.
        """
        try:
            self.append(decode())
        except UnreadableObject as error:
            if not skip:
                raise
            self.unreadable.append(error)


class _PageMeta(msgspec.Struct):
    resource_version: str = msgspec.field(default="", name="resourceVersion")
    continue_: str = msgspec.field(default="", name="continue")


class Page(msgspec.Struct):
    """One page of a list: the items still undecoded."""

    metadata: _PageMeta = msgspec.field(default_factory=_PageMeta)
    items: list[msgspec.Raw] | None = None


_PAGES = msgspec.json.Decoder(Page)
_OBJECTS = msgspec.json.Decoder(dict[str, Any])


def page(body: bytes, request: str) -> Page:
    """The frame of a list answer.

    Raises:
        UnreadableObject: it is not a list.
    """
    try:
        return _PAGES.decode(body)
    except msgspec.MsgspecError as error:
        message = f"{request}: the answer is not a list: {error}"
        raise UnreadableObject(message) from error


class _Owner(msgspec.Struct):
    uid: str = ""


class _ItemMeta(msgspec.Struct, rename="camel"):
    name: str = ""
    namespace: str = ""
    resource_version: str = ""
    owner_references: list[_Owner] | None = None


class _Item(msgspec.Struct):
    metadata: _ItemMeta = msgspec.field(default_factory=_ItemMeta)


_ITEMS = msgspec.json.Decoder(_Item)


async def add_items(found: ResourceList[R], kind: type[R], page: Page, *, skip: bool) -> None:
    """Add the objects of a page; other tasks run in between. `skip` and errors as of `ResourceList.add_decoded`."""
    for number, raw in enumerate(page.items or []):
        found.add_decoded(lambda raw=raw: _item(kind, bytes(raw)), skip=skip)  # type: ignore[misc]
        if number % _SLICE == _SLICE - 1:
            await asyncio.sleep(0)


def _item(kind: type[R], body: bytes) -> R:
    """One object of a list, which its error names."""
    try:
        return kind.from_json(body)
    except ValidationError as error:
        raise _named(kind, body, unreadable(kind, error)) from None


def _named(kind: type[Resource], body: bytes, error: UnreadableObject) -> UnreadableObject:
    try:
        meta = _ITEMS.decode(body).metadata
    except msgspec.MsgspecError:
        return error
    key = ObjectKey(meta.namespace, meta.name)
    message = f"{kind.kind} {key}{str(error).removeprefix(kind.kind)}"
    owners = [owner.uid for owner in meta.owner_references or ()]
    return UnreadableObject(message, key=str(key), resource_version=meta.resource_version, owners=owners)


def decode(kind: type[R], body: bytes) -> R:
    """One object.

    Raises:
        UnreadableObject: a field does not fit the model.
    """
    try:
        return kind.from_json(body)
    except ValidationError as error:
        raise unreadable(kind, error) from None  # the cause would print values, perhaps those of a Secret


def unreadable(kind: type[BaseModel], error: ValidationError) -> UnreadableObject:
    """The misfit in one line, without the values: they may be secret."""
    fields = "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or 'object'}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_context=False, include_input=False)[:5]
    )
    name = kind.kind if issubclass(kind, Resource) else kind.__name__
    return UnreadableObject(f"{name} does not fit its model: {fields}")


def json_object(body: bytes, request: str) -> dict[str, Any]:
    """An answer as plain JSON.

    Raises:
        UnreadableObject: it is not a JSON object.
    """
    try:
        return _OBJECTS.decode(body)
    except msgspec.MsgspecError as error:
        message = f"{request}: the answer is not a JSON object: {error}"
        raise UnreadableObject(message) from error


def encode(document: object) -> bytes:
    """Compact JSON."""
    return msgspec.json.encode(document)


def whole(obj: Resource) -> dict[str, Any]:
    """The manifest, of an object that is sent as a whole.

    Raises:
        ConfigurationError: it was cached as metadata only; the server would take the rest for removed.
    """
    if is_partial(obj):
        message = (
            f"{obj.kind} {obj.key} was cached as metadata only: a create, update or apply would lose the rest of it; "
            f"patch it, or read it live"
        )
        raise ConfigurationError(message)
    return obj.to_dict()


def for_create(obj: Resource) -> dict[str, Any]:
    """The manifest without what only the server may set."""
    document = whole(obj)
    metadata: dict[str, Any] = document.get("metadata", {})
    for name in ("uid", "resourceVersion", *_SERVER_OWNED):
        metadata.pop(name, None)
    return document


def for_apply(obj: Resource) -> dict[str, Any]:
    """The manifest as an apply request takes it: a UID or version that is set stays, as a precondition."""
    document = whole(obj)
    metadata: Mapping[str, Any] = document.get("metadata", {})
    document["metadata"] = {
        name: value for name, value in metadata.items() if name not in _SERVER_OWNED and value not in ("", None)
    }
    return document
