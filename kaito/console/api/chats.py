"""Routes of chats."""

from collections.abc import Sequence
from typing import final

from aiohttp import web

from kaito.api import Workspace
from kaito.console.api.rights import Rights, action_on
from kaito.console.api.routing import Route, json_response, key_of, read_object
from kaito.console.chat import ChatRelay, ChatRequest
from kaito.console.security.access import User
from kaito.console.watch import ClusterWatch
from kaito.runtime.meta import ObjectKey


@final
class ChatRoutes:
    """Routes of chats.

    Args:
        watch: the cluster.
        relay: relays the chats.
    """

    def __init__(self, watch: ClusterWatch, relay: ChatRelay) -> None:
        self._watch = watch
        self._relay = relay

    def routes(self) -> Sequence[Route]:
        """Returns the routes."""
        path = "/api/workspaces/{namespace}/{name}"
        return [Route("GET", f"{path}/models", self._models), Route("POST", f"{path}/chat", self._chat)]

    async def _models(self, request: web.Request, user: User) -> web.Response:
        key = await self._key(request, user)
        return json_response({"models": await self._relay.models(key, user)})

    async def _chat(self, request: web.Request, user: User) -> web.StreamResponse:
        key = await self._key(request, user)
        chat = ChatRequest.parse(await read_object(request))
        return await self._relay.relay(request, key, user, chat)

    async def _key(self, request: web.Request, user: User) -> ObjectKey:
        key = key_of(request)
        await Rights(user, self._watch).require(action_on("get", Workspace, key.namespace, key.name))
        return key
