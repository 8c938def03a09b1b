"""A client of the in-memory API server without any socket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from kaito.apiserver import ApiServer, HttpRequest

JSON = "application/json"
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"


@dataclass
class Answer:
    status: int
    body: Any
    headers: dict[str, str]


class Stream:
    """A watch, event by event."""

    def __init__(self, body: AsyncIterator[bytes]) -> None:
        self._body = body
        self._lines: list[bytes] = []

    async def line(self) -> bytes:
        """Returns the next line; raises `StopAsyncIteration` at the end of the stream."""
        while not self._lines:
            chunk = await anext(self._body)
            self._lines += chunk.splitlines()
        return self._lines.pop(0)

    async def event(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await self.line())
        return found

    async def events(self, count: int) -> list[dict[str, Any]]:
        return [await self.event() for _ in range(count)]

    async def close(self) -> None:
        """Stops reading, as a client does that disconnects."""
        close = getattr(self._body, "aclose", None)
        assert close is not None
        await close()

    async def rest(self) -> list[dict[str, Any]]:
        """Returns what is left until the stream ends."""
        found: list[dict[str, Any]] = []
        while True:
            try:
                found.append(await self.event())
            except StopAsyncIteration:
                return found


class Client:
    def __init__(self, server: ApiServer) -> None:
        self.server = server

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        content: str = "application/json",
        headers: dict[str, str] | None = None,
        **query: str,
    ) -> Answer:
        data = body if isinstance(body, bytes) else (b"" if body is None else json.dumps(body).encode())
        sent = {"content-type": content, "user-agent": "unit/1.0", **(headers or {})}
        response = await self.server.handle(HttpRequest(method, path, tuple(query.items()), sent, data))
        assert isinstance(response.body, bytes)
        decoded = json.loads(response.body) if "json" in response.headers["content-type"] else response.body.decode()
        return Answer(response.status, decoded, response.headers)

    async def ok(
        self, method: str, path: str, body: object = None, content: str = "application/json", **query: str
    ) -> Any:
        answer = await self.call(method, path, body, content, None, **query)
        assert answer.status in {200, 201}, answer.body
        return answer.body

    async def watch(self, path: str, **query: str) -> Stream:
        request = HttpRequest("GET", path, (("watch", "1"), *query.items()), {"user-agent": "unit/1.0"})
        response = await self.server.handle(request)
        assert not isinstance(response.body, bytes), response.body
        return Stream(response.body)


@pytest.fixture
def server() -> ApiServer:
    return ApiServer(seed=1, history=20)


@pytest.fixture
def client(server: ApiServer) -> Client:
    return Client(server)
