"""Encodes and decodes the JSON bodies of the client.

Objects are validated directly from bytes (validating dicts takes twice as long). Lists are decoded page by page,
yielding to the event loop between slices. A pydantic validation error becomes `UnreadableObject`.
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
"""Objects decoded before the task yields to the event loop: about 5 ms for pods."""

_SERVER_OWNED = frozenset({"managedFields", "creationTimestamp", "deletionTimestamp", "generation", "selfLink"})
"""Metadata that only the server sets; in an apply request it is an error or ignored."""


class ResourceList(list[R], Generic[R]):
    """List of objects of one kind at `resource_version`."""

    def __init__(self, objects: list[R] | None = None, *, resource_version: str = "") -> None:
        super().__init__(objects or [])
        self.resource_version = resource_version
        self.unreadable: list[UnreadableObject] = []
        """Errors of the objects that were skipped because they do not fit their model."""

    def add_decoded(self, decode: Callable[[], R], *, skip: bool) -> None:
        """Adds the decoded object; with `skip`, an object that does not fit its model is added to `unreadable`.

        Raises:
            UnreadableObject: The object does not fit its model, and `skip` is False.
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
    """One page of a list with undecoded items."""

    metadata: _PageMeta = msgspec.field(default_factory=_PageMeta)
    items: list[msgspec.Raw] | None = None


_PAGES = msgspec.json.Decoder(Page)
_OBJECTS = msgspec.json.Decoder(dict[str, Any])


def page(body: bytes, request: str) -> Page:
    """Decodes a page of a list without its items.

    Raises:
        UnreadableObject: The response is not a list.
    """
    try:
        return _PAGES.decode(body)
    except msgspec.MsgspecError as error:
        message = f"{request}: the response is not a list: {error}"
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
    """Adds the objects of a page, yielding to the event loop. `skip` and errors are those of
    `ResourceList.add_decoded`."""
    for number, raw in enumerate(page.items or []):
        found.add_decoded(lambda raw=raw: _item(kind, bytes(raw)), skip=skip)  # type: ignore[misc]
        if number % _SLICE == _SLICE - 1:
            await asyncio.sleep(0)


def _item(kind: type[R], body: bytes) -> R:
    """Decodes an object of a list; an error contains the object's key."""
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
    """Decodes one object.

    Raises:
        UnreadableObject: A field does not fit the model.
    """
    try:
        return kind.from_json(body)
    except ValidationError as error:
        raise unreadable(kind, error) from None  # the cause contains values, which may be those of a Secret


def unreadable(kind: type[BaseModel], error: ValidationError) -> UnreadableObject:
    """Converts a validation error, without the values, which may be secret."""
    fields = "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or 'object'}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_context=False, include_input=False)[:5]
    )
    name = kind.kind if issubclass(kind, Resource) else kind.__name__
    return UnreadableObject(f"{name} does not fit its model: {fields}")


def json_object(body: bytes, request: str) -> dict[str, Any]:
    """Decodes a response as plain JSON.

    Raises:
        UnreadableObject: It is not a JSON object.
    """
    try:
        return _OBJECTS.decode(body)
    except msgspec.MsgspecError as error:
        message = f"{request}: the response is not a JSON object: {error}"
        raise UnreadableObject(message) from error


def encode(document: object) -> bytes:
    """Encodes a document as compact JSON."""
    return msgspec.json.encode(document)


def full_manifest(obj: Resource) -> dict[str, Any]:
    """Returns the complete manifest of an object.

    Raises:
        ConfigurationError: Only its metadata is cached: the server would remove all other fields.
    """
    if is_partial(obj):
        message = (
            f"only the metadata of {obj.kind} {obj.key} is cached: a create, update or apply would remove "
            f"the other fields; patch it, or read it live"
        )
        raise ConfigurationError(message)
    return obj.to_dict()


def for_create(obj: Resource) -> dict[str, Any]:
    """Returns the manifest without the fields that only the server sets."""
    document = full_manifest(obj)
    metadata: dict[str, Any] = document.get("metadata", {})
    for name in ("uid", "resourceVersion", *_SERVER_OWNED):
        metadata.pop(name, None)
    return document


def for_apply(obj: Resource) -> dict[str, Any]:
    """Returns the manifest for an apply request; a UID or resourceVersion is kept as a precondition.

    Empty labels, annotations, finalizers and owner references are left out. The server does not store them, so that the
    object would seem to differ from its manifest, and omitting them removes what was applied before as well.
    """
    document = full_manifest(obj)
    metadata: Mapping[str, Any] = document.get("metadata", {})
    document["metadata"] = {
        name: value for name, value in metadata.items() if name not in _SERVER_OWNED and value not in ("", None, {}, [])
    }
    return document
