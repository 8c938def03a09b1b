"""One Workspace: its details; creation, scaling and deletion with the rights of the user."""

from collections.abc import Sequence
from typing import final

from aiohttp import web

from kaito.api import Workspace
from kaito.console.api.rights import Rights, action_on
from kaito.console.api.routing import Route, json_response, key_of, read_object, text_of
from kaito.console.security.access import User
from kaito.console.security.refusal import Refusal
from kaito.console.views.costs import cost_of
from kaito.console.views.detail import detail
from kaito.console.watch import ClusterWatch
from kaito.console.writes import create, delete, scale
from kaito.diagnosis import diagnose
from kaito.runtime.meta import ObjectKey


@final
class WorkspaceRoutes:
    """Routes of one Workspace.

    Args:
        watch: the cluster.
    """

    def __init__(self, watch: ClusterWatch) -> None:
        self._watch = watch

    def routes(self) -> Sequence[Route]:
        """Returns the routes."""
        path = "/api/workspaces/{namespace}/{name}"
        return [
            Route("GET", path, self._detail),
            Route("POST", "/api/workspaces", self._create),
            Route("DELETE", path, self._delete),
            Route("POST", f"{path}/scale", self._scale),
        ]

    async def _detail(self, request: web.Request, user: User) -> web.Response:
        key = key_of(request)
        rights = Rights(user, self._watch)
        await rights.require(action_on("get", Workspace, key.namespace, key.name))
        workspace, now = self.find(key), self._watch.clock.now()
        situation = self._watch.situations.read(workspace, now, await rights.hidden(key))
        return json_response(
            detail(
                situation,
                diagnose(situation),
                cost_of(situation, self._watch.prices),
                now=now,
                direct_url=self._watch.direct_url(key),
                tuning=self._watch.tuning.progress(key),
            )
        )

    async def _create(self, request: web.Request, user: User) -> web.Response:
        body = await read_object(request)
        text = text_of(body, "yaml")
        _require_writes(user)
        key = await create(text, user, update=body.get("update") is True)
        return json_response({"namespace": key.namespace, "name": key.name}, 201)

    async def _delete(self, request: web.Request, user: User) -> web.Response:
        key = key_of(request)
        _require_writes(user)
        await Rights(user, self._watch).require(action_on("delete", Workspace, key.namespace, key.name))
        await delete(key, user)
        return json_response({"namespace": key.namespace, "name": key.name}, 202)

    async def _scale(self, request: web.Request, user: User) -> web.Response:
        key, body = key_of(request), await read_object(request)
        _require_writes(user)
        await Rights(user, self._watch).require(action_on("patch", Workspace, key.namespace, key.name, "scale"))
        await scale(key, body.get("copies"), user)
        return json_response({"namespace": key.namespace, "name": key.name})

    def find(self, key: ObjectKey) -> Workspace:
        """Returns a Workspace.

        Raises:
            Refusal: it does not exist.
        """
        found = self._watch.situations.find(key)
        if found is None:
            raise Refusal(404, f"Workspace {key} does not exist: choose one of the list")
        return found


def _require_writes(user: User) -> None:
    if not user.writes:
        raise Refusal(403, "the console changes nothing: start it with --allow-writes")
