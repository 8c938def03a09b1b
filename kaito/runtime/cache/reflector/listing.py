"""Lists a collection, page by page, into an empty store. Called by the reflector."""

from collections.abc import Callable
from typing import Final, final

import msgspec

from kaito.runtime.cache.entry import Entry, Undecodable
from kaito.runtime.cache.jsontext import Raw, shown
from kaito.runtime.cache.reflector.collection import PAGE_SIZE, Collection, refusal, version_too_large
from kaito.runtime.cache.reflector.requests import Requests
from kaito.runtime.cache.reflector.watch import Turn
from kaito.runtime.cache.store import Store
from kaito.runtime.errors import ApiError, Gone

ANY_VERSION: Final = "0"
"""Any cached version of the server, perhaps old: for the first list."""
NEWEST: Final = ""
"""The newest version in etcd."""


class _ListMeta(msgspec.Struct, rename={"resource_version": "resourceVersion", "token": "continue"}):
    resource_version: str = ""
    token: str = ""


class _Page(msgspec.Struct):
    metadata: _ListMeta
    items: list[Raw] | None = None


_PAGE = msgspec.json.Decoder(_Page)


@final
class Lister:
    """Lists one collection, as often as needed.

    Args:
        requests: The network.
        collection: What to list.
        fresh: Creates an empty store.
        admit: Creates an entry; None for an object without readable metadata.
    """

    def __init__(
        self,
        requests: Requests,
        collection: Collection,
        *,
        fresh: Callable[[], Store],
        admit: Callable[[Raw], Entry | None],
    ) -> None:
        self._requests = requests
        self._collection = collection
        self._fresh = fresh
        self._admit = admit
        self._paged = False

    async def list(self, version: str) -> tuple[Store, str]:
        """Lists all objects, not older than `version`; returns the store and its version.

        A version that the server cannot serve is requested only once; then the newest is.

        Raises:
            ApiError, TransportError, Undecodable: the server rejected the request, did not respond, or sent an invalid
            response.
        """
        try:
            return await self._pages(version)
        except ApiError as error:
            if not version or not (isinstance(error, Gone) or version_too_large(error)):
                raise
            return await self._pages(NEWEST)

    async def _pages(self, version: str) -> tuple[Store, str]:
        """A continue token that expires restarts the list in one piece, as client-go's pager does."""
        limit = PAGE_SIZE if self._paged or version in {NEWEST, ANY_VERSION} else 0
        store = self._fresh()
        turn = Turn()
        token = ""
        while True:
            try:
                page = await self._page(version=version, limit=limit, token=token)
            except Gone:
                if not token:
                    raise
                store, token, limit = self._fresh(), "", 0
                continue
            for text in page.items or ():
                entry = self._admit(text)
                if entry is not None:
                    store.put(entry)
                    await turn.worked(len(entry.text))
            token = page.metadata.token
            if not token:
                return store, page.metadata.resource_version
            # A server that pages version 0 has no watch cache: later lists come from etcd too, and want pages.
            self._paged = self._paged or version == ANY_VERSION

    async def _page(self, *, version: str, limit: int, token: str) -> _Page:
        target = self._collection.list_target(version=version, limit=limit, token=token)
        reply = await self._requests.get(target, self._collection.list_headers)
        if reply.status != 200:
            raise refusal(reply.status, reply.headers, reply.body, request=f"GET {target}")
        try:
            return _PAGE.decode(reply.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Undecodable(f"GET {target}: not a list: {shown(reply.body)}: {error}") from error
