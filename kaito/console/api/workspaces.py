"""One Workspace: its details; creation, scaling and deletion with the rights of the user."""

from collections.abc import Sequence
from typing import final

from aiohttp import web

from kaito.api import Workspace
from kaito.console.api.rights import Rights, action_on
from kaito.console.api.routing import Route, json_response, key_of
from kaito.console.cluster.watch import ClusterWatch
from kaito.console.security.access import User
from kaito.console.security.refusal import Refusal
from kaito.console.views.costs import cost_of
from kaito.console.views.detail import detail
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
        return [Route("GET", "/api/workspaces/{namespace}/{name}", self._detail)]

    async def _detail(self, request: web.Request, user: User) -> web.Response:
        key = key_of(request)
        rights = Rights(user, self._watch)
        await rights.require(action_on("get", Workspace, key.namespace, key.name))
        workspace, now = self.find(key), self._watch.clock.now()
        situation = self._watch.situations.read(workspace, now, await rights.hidden(key))
        diagnosis = diagnose(situation)
        return json_response(detail(situation, diagnosis, cost_of(situation, self._watch.prices), now=now))

    def find(self, key: ObjectKey) -> Workspace:
        """Returns a Workspace.

        Raises:
            Refusal: it does not exist.
        """
        found = self._watch.situations.find(key)
        if found is None:
            raise Refusal(404, f"Workspace {key} does not exist: choose one of the list")
        return found
