"""`following` yields the events of a kind to a script or a tool, without a manager.

It uses an informer: all existing objects first, then every change in order, across lost connections and expired
history, which a bare watch does not guarantee.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, TypeVar, final, overload

from kaito.runtime.cache.cache import Cache
from kaito.runtime.cache.declaration import Cached
from kaito.runtime.cache.event import Event
from kaito.runtime.client.agent import user_agent
from kaito.runtime.client.client import Client
from kaito.runtime.meta import Resource
from kaito.runtime.tasks import TaskScope

R = TypeVar("R", bound=Resource)

SYNC_SECONDS: Final = 30.0
"""Longest wait for the first list."""


@overload
def following(
    client: Client, cached: type[R], *, sync_seconds: float = SYNC_SECONDS
) -> AbstractAsyncContextManager[AsyncIterator[Event[R]]]: ...
@overload
def following(
    client: Client, cached: Cached, *, sync_seconds: float = SYNC_SECONDS
) -> AbstractAsyncContextManager[AsyncIterator[Event[Any]]]: ...


@asynccontextmanager
async def following(
    client: Client, cached: Cached | type[R], *, sync_seconds: float = SYNC_SECONDS
) -> AsyncGenerator[AsyncIterator[Event[Any]]]:
    """The events of a kind, or of what a `Cached` selects of it, for the length of the body; they do not end.

    Existing objects come first, as creations marked `initial`. A slow reader misses intermediate states of an object,
    never its last one.

    Raises:
        CacheNotSynced: no first list within `sync_seconds`; the message contains the server's error.
        ConfigurationError: `Cached(Resource)`, which selects nothing.
    """
    declared = cached if isinstance(cached, Cached) else Cached(cached)
    cache = Cache(client.transport, user_agent=user_agent(client.field_manager))
    events: asyncio.Queue[Event[Any]] = asyncio.Queue(1)
    async with TaskScope("following") as scope:
        cache.acquire(declared).informer.subscribe(events.put, name="following")
        scope.spawn(cache.run(), name="cache")
        await cache.wait_synced(sync_seconds)
        yield _Following(events)


@final
class _Following:
    def __init__(self, events: "asyncio.Queue[Event[Any]]") -> None:
        self._events = events

    def __aiter__(self) -> "_Following":
        return self

    async def __anext__(self) -> Event[Any]:
        return await self._events.get()
