"""The HTTP server of the console: checks of every request, static files, and the routes of the API."""

from collections.abc import Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from mimetypes import guess_type
from typing import Final, final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from kaito.console.api.routing import MAX_BODY_BYTES, Routes, UserHandler, json_response, too_large
from kaito.console.security.access import Access
from kaito.console.security.headers import HEADERS
from kaito.console.security.link import LinkAccess
from kaito.console.security.origin import OriginCheck
from kaito.console.security.refusal import Refusal
from kaito.runtime.errors import ApiError, KaitoRuntimeError
from kaito.runtime.logging import get_logger

_TYPES: Final = {".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
"""Types that the tables of an operating system may have wrong."""

_log = get_logger(__name__)


@final
class ConsoleServer:
    """The application.

    Args:
        groups: the routes of the API.
        access: identifies users.
        origins: checks Host and Origin.
        static: folder of the files for the browser.
    """

    def __init__(
        self,
        groups: Sequence[Routes],
        access: Access,
        origins: OriginCheck,
        static: Traversable | None = None,
    ) -> None:
        self._groups = groups
        self._access = access
        self._origins = origins
        self._static = static or resources.files("kaito.console") / "static"

    def application(self) -> web.Application:
        """Returns the application of aiohttp."""
        app = web.Application(middlewares=[self._guard()], client_max_size=MAX_BODY_BYTES)
        app.on_response_prepare.append(_add_headers)
        app.router.add_get("/healthz", _healthy)
        app.router.add_get("/", self._index)
        for group in self._groups:
            for route in group.routes():
                app.router.add_route(route.method, route.path, self._signed_in(route.handler))
        app.router.add_route("*", "/api/{path:.*}", _no_route)
        app.router.add_get("/{path:.+}", self._file)
        return app

    def _guard(self) -> Middleware:
        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                if request.path != "/healthz":
                    self._origins.check(request)
                if (request.content_length or 0) > MAX_BODY_BYTES:
                    raise too_large()
                return await handler(request)
            except Refusal as refusal:
                return json_response(refusal.body(), refusal.status)
            except web.HTTPException as error:
                return json_response({"error": f"{error.reason}: use the page of the console"}, error.status)
            except ApiError as error:
                return json_response({"error": f"the API server refused the request: {error.message}"}, error.code)
            except KaitoRuntimeError as error:
                message = f"the API server does not answer: try again when it does ({error})"
                return json_response({"error": message}, 503)
            except Exception as error:  # noqa: BLE001  # the outermost edge of a request
                # Not the error's text: it may quote the body of a request, such as a prompt.
                _log.error("request failed", path=request.path, error=type(error).__name__)
                return json_response({"error": "the console failed: report it with the log of the console"}, 500)

        return guard

    def _signed_in(self, handler: UserHandler) -> Handler:
        async def signed_in(request: web.Request) -> web.StreamResponse:
            async with self._access.user(request) as user:
                return await handler(request, user)

        return signed_in

    # Pages. They contain no data of the cluster, so that they need no cookie: without one, the page explains the link.

    async def _index(self, request: web.Request) -> web.StreamResponse:
        token = request.query.get("token")
        if token is not None and isinstance(self._access, LinkAccess):
            return self._access.open(token)
        return self._read("index.html")

    async def _file(self, request: web.Request) -> web.StreamResponse:
        return self._read(request.match_info["path"])

    def _read(self, path: str) -> web.Response:
        """Returns a static file.

        Raises:
            Refusal: there is none.
        """
        found, parts = self._static, path.split("/")
        if any(part in {"", ".", ".."} or "\\" in part or "\0" in part for part in parts):
            raise Refusal(404, "there is no such page: open /")
        for part in parts:
            found = found / part
        if not found.is_file():
            raise Refusal(404, f"there is no page /{path}: open /")
        suffix = path[path.rfind(".") :]
        content_type = _TYPES.get(suffix) or guess_type(path)[0] or "application/octet-stream"
        charset = "utf-8" if content_type.startswith("text/") or content_type.endswith("json") else None
        # Not stored without a question: an upgrade must not mix files of two versions.
        headers = {"Cache-Control": "no-cache"}
        return web.Response(body=found.read_bytes(), content_type=content_type, charset=charset, headers=headers)


async def _healthy(request: web.Request) -> web.Response:
    del request
    return web.Response(text="ok\n")


async def _no_route(request: web.Request) -> web.Response:
    raise Refusal(404, f"the console has no {request.method} {request.path}: see docs/guides/console.md")


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    del request
    response.headers.update(HEADERS)
