"""Routes that concern no single Workspace: catalog, schema, plans and trouble."""

from collections.abc import Sequence
from typing import Any, cast, final

from aiohttp import web

from kaito.api import Workspace, crds
from kaito.console.api.routing import Route, json_response, read_object, text_of
from kaito.console.drafts import Planner
from kaito.console.security.access import User
from kaito.console.security.refusal import Refusal
from kaito.console.trouble import Trouble, TroubleFailed
from kaito.console.views.catalog import catalog_json
from kaito.console.views.json_values import Json
from kaito.console.watch import ClusterWatch
from kaito.runtime.errors import KaitoRuntimeError
from kaito.runtime.kinds import CustomResourceDefinition

_DEFINITION = f"{Workspace.plural}.{Workspace.group()}"


@final
class ClusterRoutes:
    """Routes of the cluster.

    Args:
        watch: the cluster.
        planner: plans drafts.
        trouble: the trouble buttons; None where there are none.
    """

    def __init__(self, watch: ClusterWatch, planner: Planner, trouble: Trouble | None) -> None:
        self._watch = watch
        self._planner = planner
        self._trouble = trouble

    def routes(self) -> Sequence[Route]:
        """Returns the routes."""
        return [
            Route("GET", "/api/catalog", self._catalog),
            Route("GET", "/api/schema", self._schema),
            Route("POST", "/api/plan", self._plan),
            Route("POST", "/api/trouble/{id}", self._cause),
        ]

    async def _catalog(self, request: web.Request, user: User) -> web.Response:
        del request, user
        settings, _ = self._watch.controller_settings()
        return json_response(catalog_json(self._watch.prices.book, cloud=settings.cloud, region=settings.region))

    async def _schema(self, request: web.Request, user: User) -> web.Response:
        """Returns the schema of the cluster's definition; that of this version if the user may not read it."""
        del request
        try:
            found = await user.client.get(CustomResourceDefinition, _DEFINITION)
            return json_response(_schema(found.to_dict()))
        except (KaitoRuntimeError, StopIteration):
            shipped = next(each for each in crds.manifests() if each["metadata"]["name"] == _DEFINITION)
            return json_response(_schema(shipped))

    async def _plan(self, request: web.Request, user: User) -> web.Response:
        body = await read_object(request)
        return json_response(await self._planner.plan(text_of(body, "yaml"), user, update=body.get("update") is True))

    async def _cause(self, request: web.Request, user: User) -> web.Response:
        trouble, name = self._trouble, request.match_info["id"]
        if trouble is None or name not in {button.id for button in trouble.buttons} or not user.writes:
            raise Refusal(404, "there is no such trouble button: only `kaito up` has them, see /api/session")
        body = await read_object(request)
        target = text_of(body, "target") if body.get("target") is not None else ""
        try:
            return json_response({"done": await trouble.cause(name, target)})
        except TroubleFailed as error:
            raise Refusal(409, str(error)) from error


def _schema(definition: Any) -> Json:
    """Returns the schema of the version that the console writes.

    Raises:
        StopIteration: the definition does not have it.
    """
    version = Workspace.api_version.partition("/")[2]
    found = next(each for each in definition["spec"]["versions"] if each["name"] == version)
    return cast("Json", found["schema"]["openAPIV3Schema"])
