"""Routes of the wrapper: `/chat` is translated, OpenAI's routes are forwarded, health and metrics cover the engine too.

`main` builds it; tests use it with a stub engine. Guarantees:

* `/chat` has the contract of the transformers runtime (`kaito_presets.serving.chat`).
* Streams are forwarded chunk by chunk.
* A client that disconnects cancels its request to the engine, which stops generating.
* Requests beyond `in_flight_limit` are rejected with 429. (vLLM's own queue has no limit.)
"""

import json
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, final

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Middleware
from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics, generate_latest

from kaito_presets import __version__
from kaito_presets.errors import BadRequest, GenerationFailed, Overloaded, RequestError, Unavailable
from kaito_presets.json_values import is_list, is_object
from kaito_presets.serving.adapter_sync import AdapterSync, adapters_document
from kaito_presets.serving.chat import TURN_SEPARATOR, ChatMessage, ChatRequest, ChatResponse, LengthOptions
from kaito_presets.serving.health import (
    LAST_REQUEST,
    LAST_REQUEST_HELP,
    PROMETHEUS_CONTENT_TYPE,
    ROOT_RESPONSE,
    ServerState,
    require_healthy,
)
from kaito_presets.serving.http_errors import Handler, errors_as_json, read_body
from kaito_presets.serving.progress import StartProgress
from kaito_presets.serving.tracing import Tracing, current_headers
from kaito_presets.vllm import translate
from kaito_presets.vllm.adapters import LOAD_ROUTE, UNLOAD_ROUTE, AdapterNames

log = logging.getLogger(__name__)

disable_created_metrics()  # type: ignore[no-untyped-call]  # `_created` series double the counters and are not read

HOP_BY_HOP: Final = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "host", "content-length"}
)
"""Headers of one connection (RFC 9110, section 7.6.1), and those that aiohttp sets."""

_COUNTED_ROUTES: Final = frozenset(
    {"/", "/chat", "/health", "/healthz", "/metrics", "/progress", "/adapters", "/version"}
)
"""Paths with a series of their own; all others are those of the engine, which users call."""


@final
class Proxy:
    """The application on the port of the pod, in front of the engine."""

    def __init__(
        self,
        engine_url: str,
        *,
        model: str,
        adapters: Sequence[str] = (),
        in_flight_limit: int | None = None,
        progress: StartProgress | None = None,
        sync: AdapterSync | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._engine = engine_url.rstrip("/")
        self._model = model
        self.names = AdapterNames(model, adapters)
        self.sync = sync
        """The list of adapters that the server follows; None if its adapters do not change."""
        self.tracing = tracing or Tracing()
        self._limit = in_flight_limit
        self._in_flight = 0
        self._chat_template: bool | None = None
        self._session: aiohttp.ClientSession | None = None
        self.state: ServerState = "Loading"
        self.progress = progress or StartProgress()
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "kaito_http_requests", "Requests answered.", ("route", "code"), registry=self._registry
        )
        self._rejected = Counter("kaito_ratelimit_rejected", "Requests answered with 429.", registry=self._registry)
        self._gauge = Gauge("kaito_generation_in_flight", "Requests under way.", registry=self._registry)
        self._last_request = Gauge(LAST_REQUEST, LAST_REQUEST_HELP, registry=self._registry)
        self._last_request.set_to_current_time()

    @property
    def idle(self) -> bool:
        """Whether no request is running."""
        return self._in_flight == 0

    def application(self, max_request_bytes: int = 16 * 2**20) -> web.Application:
        """Builds the application with all routes."""
        traced = [self.tracing.middleware()] if self.tracing.is_on else []
        app = web.Application(
            middlewares=[*traced, self._counting(), errors_as_json], client_max_size=max_request_bytes
        )
        app.add_routes(
            [
                web.get("/", self._root),
                web.get("/health", self._health),
                web.get("/healthz", self._health),
                web.get("/progress", self._progress),
                web.get("/adapters", self._adapters),
                web.get("/version", self._version),
                web.get("/metrics", self._metrics),
                web.post("/chat", self._chat),
                web.get("/v1/models", self._models),
                # Only the wrapper changes adapters.
                web.route("*", LOAD_ROUTE, self._refuse),
                web.route("*", UNLOAD_ROUTE, self._refuse),
                web.route("*", "/{path:.*}", self._forward),
            ]
        )
        app.cleanup_ctx.append(self._sessions)
        return app

    async def engine_is_healthy(self) -> bool:
        """Returns whether the health check of the engine succeeds."""
        try:
            async with self._client().get(self._engine + "/health", timeout=aiohttp.ClientTimeout(total=5)) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def _sessions(self, _: web.Application) -> AsyncIterator[None]:
        # No total timeout, because a completion may take minutes. The connections of an engine that exits are closed.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        self._session = aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0))
        yield
        await self._session.close()

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise Unavailable("the server is not started")
        return self._session

    # Routes of the wrapper.

    async def _root(self, _: web.Request) -> web.Response:
        return web.json_response(ROOT_RESPONSE)

    async def _health(self, _: web.Request) -> web.Response:
        healthy = self.state == "Healthy" and await self.engine_is_healthy()
        status = self.state if healthy or self.state != "Healthy" else "Unhealthy"
        return web.json_response({"status": status}, status=200 if healthy else 503)

    async def _progress(self, _: web.Request) -> web.Response:
        return web.json_response(self.progress.document(self.state))

    async def _adapters(self, _: web.Request) -> web.Response:
        return web.json_response(adapters_document(self.sync))

    async def _refuse(self, request: web.Request) -> web.Response:
        raise web.HTTPNotFound(text=f"{request.path} is not served; change the adapters of the Workspace")

    async def _models(self, request: web.Request) -> web.StreamResponse:
        """Answers with the engine's models under the names that requests use."""
        require_healthy(self.state)
        if self.sync is None:
            return await self._forward(request)
        try:
            async with self._client().get(self._engine + "/v1/models") as response:
                document: Any = await response.json(content_type=None)
                status = response.status
        except (aiohttp.ClientError, ValueError) as error:
            raise GenerationFailed(f"the request to the engine failed: {error}") from error
        models = document.get("data") if is_object(document) else None
        if status == 200 and is_list(models):
            renamed = [
                {**model, "id": name}
                for model in models
                if is_object(model) and (name := self.names.public_name(str(model.get("id")))) is not None
            ]
            document = {**document, "data": renamed}
        return web.json_response(document, status=status)

    async def send_to_engine(self, path: str, body: dict[str, Any]) -> tuple[int, str]:
        """Sends a JSON request to the engine; returns the status, and the message of an error.

        Raises:
            GenerationFailed: the engine cannot be reached.
        """
        try:
            async with self._client().post(self._engine + path, json=body) as response:
                text = await response.text()
                status = response.status
        except aiohttp.ClientError as error:
            raise GenerationFailed(f"the request to the engine failed: {error}") from error
        try:
            document: Any = json.loads(text)
        except ValueError:
            document = None
        return status, error_message(document) if is_object(document) else text[:500]

    async def _version(self, _: web.Request) -> web.Response:
        engine_version = ""
        if self.state == "Healthy":
            async with self._client().get(self._engine + "/version") as response:
                engine_version = str((await response.json()).get("version", "")) if response.status == 200 else ""
        return web.json_response(
            {"version": __version__, "engine": "vllm", "engine_version": engine_version, "model": self._model}
        )

    async def _metrics(self, _: web.Request) -> web.Response:
        body = generate_latest(self._registry)
        try:
            async with self._client().get(self._engine + "/metrics") as response:
                if response.status == 200:
                    body += await response.read()
        except aiohttp.ClientError:
            pass  # the engine is still loading: only the metrics of the wrapper exist
        return web.Response(body=body, headers={"Content-Type": PROMETHEUS_CONTENT_TYPE})

    async def _chat(self, request: web.Request) -> web.Response:
        require_healthy(self.state)
        body = await read_body(request, ChatRequest)
        with _ConcurrencySlot(self):
            if body.messages:
                response = await self._answer_messages(body, body.messages)
            else:
                response = await self._answer_prompt(body)
        return web.json_response(response.model_dump())

    async def _answer_messages(
        self, body: ChatRequest, conversation: Sequence[ChatMessage], *, head: str = ""
    ) -> ChatResponse:
        """Answers a conversation. The engine applies the chat template, so a long conversation is not truncated.

        Args:
            body: the request.
            conversation: its messages, or its prompt as a message.
            head: text in front of each answer to a prompt.
        """
        messages = [message.model_dump() for message in conversation]
        options = dict(body.generate_kwargs or {})
        lengths = LengthOptions.take_from(body, options)
        new_tokens = lengths.max_new_tokens
        if lengths.depends_on_prompt:
            tokens, _ = await self._tokenize({"messages": messages})
            new_tokens = lengths.new_tokens(len(tokens))
        fields = translate.sampling_fields(options, max_new_tokens=new_tokens)
        document = await self._post("/v1/chat/completions", {"messages": messages, **fields})
        return translate.chat_response(body, document, head=head)

    async def _has_chat_template(self) -> bool:
        """Whether the engine's model has a chat template. The engine is queried once; it has no route for this."""
        if self._chat_template is None:
            try:
                await self._tokenize({"messages": [{"role": "user", "content": "x"}]})
                self._chat_template = True
            except BadRequest:
                self._chat_template = False
            except RequestError:  # the engine fails, as the request itself will
                return False
        return self._chat_template

    async def _answer_prompt(self, body: ChatRequest) -> ChatResponse:
        text = body.require_prompt()
        if body.apply_chat_template is not False and body.is_turn(has_template=await self._has_chat_template()):
            head = text + TURN_SEPARATOR if body.return_full_text else ""
            return await self._answer_messages(body, [ChatMessage(role="user", content=text)], head=head)
        options = dict(body.generate_kwargs or {})
        lengths = LengthOptions.take_from(body, options)
        prompt: str | list[int] = text
        new_tokens = lengths.max_new_tokens
        if lengths.depends_on_prompt:
            tokens, context_tokens = await self._tokenize({"prompt": text})
            new_tokens = lengths.new_tokens(len(tokens))
            count = lengths.kept_prompt_tokens(len(tokens), context_tokens)
            if count < len(tokens):
                prompt = tokens[-count:]
                text = str((await self._post("/detokenize", {"tokens": prompt}))["prompt"])
        fields = translate.sampling_fields(options, max_new_tokens=new_tokens)
        document = await self._post("/v1/completions", {"prompt": prompt, **fields})
        return translate.chat_response(body, document, head=text if body.return_full_text else "")

    async def _tokenize(self, subject: dict[str, Any]) -> tuple[list[int], int]:
        document = await self._post("/tokenize", subject)
        return list(document["tokens"]), int(document["max_model_len"])

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Sends a JSON request to the engine.

        Raises:
            RequestError: the engine rejected the request, or failed.
        """
        model = self.names.chat_model
        self.names.begin(model)
        try:
            async with self._client().post(
                self._engine + path, json={"model": model, **body}, headers=current_headers()
            ) as response:
                document: dict[str, Any] = await response.json(content_type=None)
                status = response.status
        except (aiohttp.ClientError, ValueError) as error:
            raise GenerationFailed(f"the request to the engine failed: {error}") from error
        finally:
            self.names.end(model)
        if status == 200:
            return document
        message = error_message(document)
        if status == 429:
            raise Overloaded(message, retry_after_seconds=1)
        if 400 <= status < 500:
            raise BadRequest(message)
        raise GenerationFailed(message)

    # Routes of the engine.

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        require_healthy(self.state)
        with _ConcurrencySlot(self, counted=request.method == "POST"):
            headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
            if traced := current_headers():
                headers = {name: value for name, value in headers.items() if name.lower() not in traced} | traced
            body, model = self._resolve_model(await request.read())
            self.names.begin(model)
            try:
                async with self._client().request(
                    request.method, self._engine + request.raw_path, data=body or None, headers=headers,
                    allow_redirects=False,
                ) as upstream:  # fmt: skip
                    return await self._relay(request, upstream)
            except aiohttp.ClientConnectionError as error:
                raise GenerationFailed(f"the request to the engine failed: {error}") from error
            finally:
                self.names.end(model)

    def _resolve_model(self, body: bytes) -> tuple[bytes, str]:
        """Replaces the model in a request body by the engine's name; returns that name too.

        Raises:
            UnknownModel: the adapter was removed.
        """
        try:
            document = json.loads(body) if body else None
        except (ValueError, RecursionError):
            return body, ""  # the engine rejects it
        if not is_object(document):
            return body, ""
        given = document.get("model")
        name = self.names.resolve(given)
        if name is None or name == given:
            return body, given if isinstance(given, str) else ""
        return json.dumps(document | {"model": name}).encode(), name

    async def _relay(self, request: web.Request, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
        headers = {name: value for name, value in upstream.headers.items() if name.lower() not in HOP_BY_HOP}
        response = web.StreamResponse(status=upstream.status, headers=headers)
        await response.prepare(request)
        async for piece in upstream.content.iter_any():
            await response.write(piece)
        await response.write_eof()
        return response

    def acquire_slot(self) -> None:
        """Counts a running request.

        Raises:
            Overloaded: `in_flight_limit` requests are running.
        """
        if self._limit is not None and self._in_flight >= self._limit:
            self._rejected.inc()
            raise Overloaded(f"{self._in_flight} requests are running", retry_after_seconds=1)
        self._in_flight += 1
        self._gauge.set(self._in_flight)
        self._last_request.set_to_current_time()

    def release_slot(self) -> None:
        """Ends a running request."""
        self._in_flight -= 1
        self._gauge.set(self._in_flight)
        self._last_request.set_to_current_time()

    def _counting(self) -> Middleware:
        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            code = "499"
            try:
                response = await handler(request)
                code = str(response.status)
                return response
            finally:
                route = request.path if request.path in _COUNTED_ROUTES else "engine"
                self._requests.labels(route, code).inc()

        return count


class _ConcurrencySlot:
    """Counts a request as running inside the `with` block, if `counted`."""

    def __init__(self, proxy: Proxy, *, counted: bool = True) -> None:
        self._proxy = proxy
        self._counted = counted

    def __enter__(self) -> None:
        if self._counted:
            self._proxy.acquire_slot()

    def __exit__(self, *_: object) -> None:
        if self._counted:
            self._proxy.release_slot()


def error_message(document: Any) -> str:
    """Extracts the message of an error body in OpenAI's or FastAPI's format."""
    if is_object(document):
        error = document.get("error")
        if is_object(error) and error.get("message"):
            return str(error["message"])
        return str(document.get("message") or document.get("detail") or document)
    return str(document)
