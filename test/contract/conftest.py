"""Fixtures of the contract tests: the in-memory API server and a real kube-apiserver behind one small client.

Every test that takes `server` runs twice, on `memory` and on `real`. Where Kubernetes cannot be had (no binaries, no
Go), the real runs are skipped and say so. The client is aiohttp and nothing of `kaito.runtime`: these tests compare two
servers, not a client with a server.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from hack.envtest import ControlPlane
from kaito.apiserver import ApiServer, serve
from test.support.control_plane import real_control_plane

SETTLE_SECONDS = 0.02
"""aiohttp closes transports in the loop's next rounds; without them Python warns of unclosed sockets."""
JSON = "application/json"
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"


@dataclass(frozen=True)
class Answer:
    """One response, decoded."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    warnings: tuple[str, ...] = ()


@dataclass
class Server:
    """One of the two servers, and the namespace that belongs to the test."""

    name: str
    url: str
    session: aiohttp.ClientSession
    kubeconfig: Path
    namespace: str
    kubernetes: tuple[int, int] = (1, 35)

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        content: str = JSON,
        headers: Mapping[str, str] | None = None,
        **query: str,
    ) -> Answer:
        """Sends a request; `{ns}` in the path is the test's namespace."""
        data = body if isinstance(body, bytes) else (json.dumps(body).encode() if body is not None else None)
        sent = {"content-type": content, "user-agent": "contract/1.0", **(headers or {})}
        url = self.url + path.replace("{ns}", self.namespace)
        async with self.session.request(method, url, data=data, headers=sent, params=query) as response:
            raw = await response.read()
            decoded = json.loads(raw) if "json" in response.content_type else raw.decode()
            warnings = tuple(response.headers.getall("warning", ()))
            return Answer(response.status, decoded, response.headers, warnings)

    async def ok(self, method: str, path: str, body: object = None, content: str = JSON, **query: str) -> Any:
        """Sends a request that has to succeed, and returns its body."""
        answer = await self.call(method, path, body, content, None, **query)
        assert answer.status in {200, 201, 202}, answer.body
        return answer.body

    async def events(self, path: str, count: int, **query: str) -> list[dict[str, Any]]:
        """Returns the first events of a watch."""
        found: list[dict[str, Any]] = []
        async with aclosing(self.watch(path, **query)) as stream:
            async for event in stream:
                found.append(event)
                if len(found) == count:
                    break
        return found

    async def watch(self, path: str, **query: str) -> AsyncGenerator[dict[str, Any], None]:
        """Yields the events of a watch; it ends with the server's stream."""
        url = self.url + path.replace("{ns}", self.namespace)
        async with self.session.get(url, params={"watch": "1", **query}) as response:
            assert response.status == 200, await response.text()
            buffer = b""
            async for chunk in response.content.iter_any():
                buffer += chunk
                *lines, buffer = buffer.split(b"\n")
                for line in lines:
                    yield json.loads(line)


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """One real control plane for the whole run."""
    with real_control_plane() as plane:
        yield plane


async def _ready(server: Server) -> Server:
    await server.ok("POST", "/api/v1/namespaces", {"metadata": {"name": server.namespace}})
    return server


@pytest.fixture
async def memory(tmp_path: Path) -> AsyncIterator[Server]:
    """The in-memory server on a socket, as bare as a real control plane (no garbage collection)."""
    async with serve(ApiServer(collect_garbage=False, authorization="RBAC")) as at, aiohttp.ClientSession() as session:
        kubeconfig = tmp_path / "memory.kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(at.kubeconfig()))
        yield await _ready(Server("memory", at.url, session, kubeconfig, f"t-{uuid.uuid4().hex[:8]}"))
        await session.close()
        await asyncio.sleep(SETTLE_SECONDS)


@pytest.fixture
async def real(control_plane: ControlPlane) -> AsyncIterator[Server]:
    """The real server."""
    context = ssl.create_default_context(cafile=str(control_plane.ca_file))
    connector = aiohttp.TCPConnector(ssl=context)
    headers = {"authorization": f"Bearer {control_plane.token}"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        name = f"t-{uuid.uuid4().hex[:8]}"
        yield await _ready(Server("real", control_plane.url, session, control_plane.kubeconfig, name))
        await session.close()
        await asyncio.sleep(SETTLE_SECONDS)


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.real)])
def server(request: pytest.FixtureRequest) -> Server:
    """Either server: tests that take it hold for both. Not async, or it could not ask for an async fixture."""
    found: Server = request.getfixturevalue(request.param)
    return found
