"""The session, the stream of events, and the money of all Workspaces."""

import math
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Final, final

from aiohttp import web

from kaito.console.api.rights import Rights
from kaito.console.api.routing import Route, json_response
from kaito.console.security.access import User
from kaito.console.security.refusal import Refusal
from kaito.console.settings import ConsoleSettings
from kaito.console.stream import EVENT_STREAM_HEADERS, EventStream
from kaito.console.views.json_values import Json
from kaito.console.watch import ClusterWatch
from kaito.runtime.kinds import Namespace

MAX_STREAMS: Final = 500
"""Streams of events at a time."""

STREAM_SECONDS: Final = 300.0
"""Duration of a stream in a cluster; the browser opens the next one."""


@final
class SessionRoutes:
    """Routes that concern the cluster as a whole.

    Args:
        watch: the cluster.
        settings: settings of the console.
        buttons: the trouble buttons.
    """

    def __init__(self, watch: ClusterWatch, settings: ConsoleSettings, buttons: Sequence[Json] = ()) -> None:
        self._watch = watch
        self._settings = settings
        self._buttons = list(buttons)
        self._streams = 0

    def routes(self) -> Sequence[Route]:
        """Returns the routes."""
        return [
            Route("GET", "/api/session", self._session),
            Route("GET", "/api/events", self._events),
            Route("GET", "/api/money", self._money),
        ]

    async def _session(self, request: web.Request, user: User) -> web.Response:
        del request
        await self._watch.wait_synced()
        return json_response(
            {
                "version": version("kaito"),
                "mode": self._settings.mode,
                "cluster": self._settings.cluster,
                "user": user.name,
                "writes": user.writes,
                "trouble": self._buttons,
                "links": {
                    "trace": self._settings.trace_url,
                    "dashboard": self._settings.dashboard_url,
                    "alerts": self._settings.alerts_url,
                },
                "namespaces": await self._namespaces(user),
            }
        )

    async def _namespaces(self, user: User) -> list[str]:
        visible = await self._visible(user)
        known = {key.namespace for key in self._watch.board.entries} | set(self._settings.namespaces)
        if not self._settings.namespaces and self._watch.cache.informer(Namespace).synced:
            known |= {key.name for key in self._watch.cache.keys(Namespace)}
        return sorted(name for name in known if visible(name))

    async def _visible(self, user: User) -> Callable[[str], bool]:
        return await Rights(user, self._watch).namespaces()

    async def _events(self, request: web.Request, user: User) -> web.StreamResponse:
        response = web.StreamResponse(headers=EVENT_STREAM_HEADERS)
        rights = Rights(user, self._watch)
        if self._streams >= MAX_STREAMS:
            raise Refusal(429, f"{MAX_STREAMS} pages are open: close some of them and reload this one")
        await self._watch.wait_synced()
        await rights.namespaces()
        await response.prepare(request)
        stream = EventStream(self._watch.board, self._watch.reachability, self._watch.money, rights)
        self._streams += 1
        try:
            # In a cluster, the next stream identifies the user again: the token may have expired.
            await stream.run(response, STREAM_SECONDS if self._settings.mode == "cluster" else math.inf)
        except (Refusal, TimeoutError, ConnectionError):
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._streams -= 1
        return response

    async def _money(self, request: web.Request, user: User) -> web.Response:
        del request
        return json_response(self._watch.money(await self._visible(user)))
