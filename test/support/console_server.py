"""The server with canned answers: the console's static files and its HTTP API, in a thread of its own."""

import asyncio
import contextlib
import json
import queue
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Final, Self

import yaml
from aiohttp import web

from kaito.console.security.headers import HEADERS
from test.support import console_data as data

STATIC: Final = Path(__file__).resolve().parents[2] / "kaito" / "console" / "static"

Json = dict[str, Any]


class ConsoleStub:
    """A console whose cluster is a list of rows; tests change it while a browser looks at it."""

    def __init__(self, rows: list[Json] | None = None, *, writes: bool = True, trouble: bool = True) -> None:
        self.rows = {f"{one['namespace']}/{one['name']}": one for one in (data.rows() if rows is None else rows)}
        self.session: Json = {**data.SESSION, "writes": writes}
        if not trouble:
            self.session["trouble"] = []
        self.requests: queue.Queue[tuple[str, str, Json]] = queue.Queue()
        """Method, path and body of every change that a browser requested."""
        self.plans: list[str] = []
        self.authorized = True
        self.chat_error = ""
        """With it, chats end with this error after the first word."""
        self.words = ("The", " capital", " of", " France", " is", " Paris", ".")
        self._loop = asyncio.new_event_loop()
        self._streams: set[asyncio.Queue[tuple[str, Json]]] = set()
        self._runner: web.AppRunner | None = None
        self._port = 0
        self._thread = threading.Thread(target=self._loop.run_forever, name="console-stub", daemon=True)

    # -- lifecycle ----------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://127.0.0.1:{self._port}/"

    def __enter__(self) -> Self:
        self._thread.start()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def start(self) -> None:
        """Listens, on the same port as before."""
        self._run(self._start())

    def stop(self) -> None:
        """Stops listening and cuts every connection."""
        self._run(self._stop())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _start(self) -> None:
        application = web.Application(middlewares=[self._headers])
        application.add_routes(self._routes())
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        listener = socket.create_server(("127.0.0.1", self._port))
        self._port = listener.getsockname()[1]
        await web.SockSite(self._runner, listener).start()

    async def _stop(self) -> None:
        for stream in self._streams:
            stream.put_nowait(("end", {}))
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    # -- what happens in the cluster ----------------------------------------------------------------------------------

    def change(self, *rows: Json, deletes: tuple[str, ...] = ()) -> None:
        """Changes rows and sends the change to every browser."""
        for one in rows:
            self.rows[f"{one['namespace']}/{one['name']}"] = one
        for name in deletes:
            self.rows.pop(name, None)
        self.send("change", {"upserts": list(rows), "deletes": list(deletes), "money": self.money()})

    def send(self, event: str, content: Json) -> None:
        """Sends an event to every browser."""
        for stream in list(self._streams):
            self._loop.call_soon_threadsafe(stream.put_nowait, (event, content))

    def money(self) -> Json:
        """The cost of the rows."""
        return data.money(list(self.rows.values()))

    # -- HTTP ---------------------------------------------------------------------------------------------------------

    def _routes(self) -> list[web.RouteDef]:
        workspace = "/api/workspaces/{namespace}/{name}"
        return [
            web.get("/", self._index),
            web.get("/api/session", self._session),
            web.get("/api/events", self._events),
            web.get("/api/money", _answering(self.money)),
            web.get("/api/catalog", _answering(data.catalog)),
            web.get("/api/schema", _answering(data.schema)),
            web.post("/api/plan", self._plan),
            web.post("/api/workspaces", self._apply),
            web.get(workspace, self._detail),
            web.delete(workspace, self._delete),
            web.post(f"{workspace}/scale", self._scale),
            web.get(f"{workspace}/models", self._models),
            web.post(f"{workspace}/chat", self._chat),
            web.post("/api/trouble/{id}", self._trouble),
            web.get("/{path:.+}", self._static),
        ]

    @web.middleware
    async def _headers(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.path.startswith("/api/") and not self.authorized:
            return web.json_response({"error": "open the link that the console printed"}, status=401)
        if request.method != "GET" and request.headers.get("X-Kaito-Console") != "1":
            return web.json_response({"error": "the header X-Kaito-Console is missing"}, status=403)
        response = await handler(request)
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    async def _index(self, _: web.Request) -> web.Response:
        return web.Response(text=(STATIC / "index.html").read_text(), content_type="text/html")

    async def _static(self, request: web.Request) -> web.StreamResponse:
        path = (STATIC / request.match_info["path"]).resolve()
        if not path.is_relative_to(STATIC) or not path.is_file():
            return web.json_response({"error": f"{request.path} does not exist"}, status=404)
        types = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
        return web.Response(body=path.read_bytes(), content_type=types.get(path.suffix, "text/plain"))

    async def _session(self, _: web.Request) -> web.Response:
        return web.json_response(self.session)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        stream: asyncio.Queue[tuple[str, Json]] = asyncio.Queue()
        stream.put_nowait(("snapshot", {"workspaces": list(self.rows.values()), "money": self.money()}))
        self._streams.add(stream)
        try:
            with contextlib.suppress(ConnectionResetError):
                while True:
                    event, content = await stream.get()
                    if event == "end":
                        break
                    await response.write(_event(event, content))
        finally:
            self._streams.discard(stream)
        return response

    def _row(self, request: web.Request) -> Json | None:
        return self.rows.get("{namespace}/{name}".format(**request.match_info))

    async def _detail(self, request: web.Request) -> web.Response:
        found = self._row(request)
        if found is None:
            return web.json_response({"error": "this Workspace does not exist"}, status=404)
        return web.json_response(data.detail(found))

    async def _plan(self, request: web.Request) -> web.Response:
        text = (await request.json())["yaml"]
        self.plans.append(text)
        return web.json_response(data.plan(text))

    async def _apply(self, request: web.Request) -> web.Response:
        body = await self._record(request)
        metadata = yaml.safe_load(body["yaml"])["metadata"]
        self.change(data.row(metadata["name"], "progressing", namespace=metadata["namespace"]))
        return web.json_response({"namespace": metadata["namespace"], "name": metadata["name"]}, status=201)

    async def _delete(self, request: web.Request) -> web.Response:
        await self._record(request)
        found = self._row(request)
        assert found is not None
        self.change({**found, "state": "deleting", "serving": False, "summary": "its node is being returned"})
        return web.json_response({}, status=202)

    async def _scale(self, request: web.Request) -> web.Response:
        body = await self._record(request)
        found = self._row(request)
        assert found is not None
        self.change({**found, "copies": {**found["copies"], "wanted": body["copies"]}})
        return web.json_response({})

    async def _models(self, request: web.Request) -> web.Response:
        found = self._row(request)
        assert found is not None
        adapters = [one["name"] for one in data.detail(found)["adapters"]]
        return web.json_response({"models": [found["model"], f"{found['model']}:base", *adapters]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        await self._record(request)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for word in self.words:
            await response.write(_event("token", {"text": word}))
            if self.chat_error:
                await response.write(_event("error", {"error": self.chat_error}))
                return response
        await response.write(
            _event(
                "done",
                {
                    "promptTokens": 12,
                    "completionTokens": len(self.words),
                    "firstTokenSeconds": 0.18,
                    "tokensPerSecond": 41.3,
                    "finishReason": "stop",
                },
            )
        )
        return response

    async def _trouble(self, request: web.Request) -> web.Response:
        body = await self._record(request)
        return web.json_response({"done": f"{request.match_info['id']} was done to {body['target'] or 'the cloud'}."})

    async def _record(self, request: web.Request) -> Json:
        body: Json = await request.json() if request.can_read_body else {}
        self.requests.put((request.method, request.path, body))
        return body


def _answering(content: Callable[[], Json]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        del request
        return web.json_response(content())

    return answer


def _event(name: str, content: Json) -> bytes:
    return f"event: {name}\ndata: {json.dumps(content)}\n\n".encode()
