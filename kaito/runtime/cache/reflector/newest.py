"""Requests the server's newest version with a small request, and checks whether its watches deliver anything.

The reflector does so when a watch has been silent for long. Silence has three causes: a quiet kind on a server that
sends few bookmarks (etcd reports progress every ten minutes by default), a connection on which nothing arrives, and a
server that was restored from an older state and sends nothing until it reaches the watch's version again.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

import msgspec

from kaito.runtime.cache.jsontext import LineSplitter, LineTooLong
from kaito.runtime.cache.reflector.collection import Collection
from kaito.runtime.cache.reflector.requests import Requests
from kaito.runtime.cache.reflector.watch import Frame
from kaito.runtime.errors import TransportError

ANSWER_SECONDS: Final = 10.0
"""Time limit of the request."""


class Meta(msgspec.Struct, rename={"resource_version": "resourceVersion"}):
    """The metadata of a list or a bookmark."""

    resource_version: str = ""
    annotations: dict[str, str] | None = None


class _Answer(msgspec.Struct):
    metadata: Meta


_ANSWER = msgspec.json.Decoder(_Answer)
_FRAME = msgspec.json.Decoder(Frame)


@dataclass(frozen=True, slots=True)
class Newest:
    """The server's response."""

    version: str
    """Its newest resource version; empty when it sent none."""
    delivered: bool
    """Whether a watch delivered the version, if the server supports that."""


async def fetch_newest(requests: Requests, collection: Collection, *, streaming: bool) -> Newest:
    """Requests the newest version of a collection at low cost.

    Args:
        requests: the network.
        collection: the watched collection.
        streaming: try a watch with initial events that selects no object first. Without support for that, or if the
            watch delivers nothing, a list of one object's metadata follows.
    """
    if streaming:
        version = await _by_watch(requests, collection)
        if version:
            return Newest(version, delivered=True)
    version = await _by_list(requests, collection)
    return Newest(version, delivered=bool(version) and not streaming)


async def _by_watch(requests: Requests, collection: Collection) -> str:
    try:
        async with (
            asyncio.timeout(ANSWER_SECONDS),
            requests.stream(collection.question_stream(int(ANSWER_SECONDS)), collection.watch_headers) as reply,
        ):
            if reply.status != 200:
                return ""
            lines = LineSplitter()
            async for chunk in reply.chunks():
                for line in lines.feed(chunk):
                    frame = _FRAME.decode(line)
                    return _ANSWER.decode(frame.object).metadata.resource_version if frame.type == "BOOKMARK" else ""
    except (TransportError, TimeoutError, LineTooLong, msgspec.DecodeError, UnicodeDecodeError):
        return ""
    return ""


async def _by_list(requests: Requests, collection: Collection) -> str:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reply = await requests.get(collection.question_list(), collection.metadata_headers)
        return _ANSWER.decode(reply.body).metadata.resource_version if reply.status == 200 else ""
    except (TransportError, TimeoutError, msgspec.DecodeError, UnicodeDecodeError):
        return ""
