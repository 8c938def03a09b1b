"""A console over the in-memory API server, both on loopback."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from kaito.api import Workspace, crds
from kaito.apiserver import ApiServer, serve
from kaito.console.console import Console, running_console
from kaito.console.settings import ConsoleSettings
from kaito.runtime.client import Client, ClusterConfig, HttpTransport, NoCredentials
from kaito.runtime.kinds import CustomResourceDefinition

SIZE = "Standard_NC24ads_A100_v4"
WRITE = {"X-Kaito-Console": "1"}


def workspace(name: str = "phi", namespace: str = "default", **changes: Any) -> Workspace:
    """An inference Workspace of one A100."""
    document: dict[str, Any] = {
        "metadata": {"name": name, "namespace": namespace},
        "resource": {"instanceType": SIZE, "labelSelector": {"matchLabels": {"apps": name}}},
        "inference": {"preset": {"name": "phi-3-mini-4k-instruct"}},
    }
    return Workspace.model_validate(document | changes)


def ready(conditions: tuple[str, ...] = ("ResourceReady", "InferenceReady", "WorkspaceReady")) -> dict[str, Any]:
    """The status of a Workspace that answers."""
    at = "2030-01-01T00:00:00Z"
    return {
        "state": "Ready",
        "replicas": 1,
        "readyReplicas": 1,
        "targetNodeCount": 1,
        "conditions": [
            {"type": each, "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": at}
            for each in conditions
        ],
    }


async def sse(response: aiohttp.ClientResponse) -> AsyncGenerator[tuple[str, Any]]:
    """Yields the events of a stream, comments included."""
    name = ""
    async for line in response.content:
        text = line.decode().rstrip("\n")
        if text.startswith(":"):
            yield "comment", text
        elif text.startswith("event: "):
            name = text.removeprefix("event: ")
        elif text.startswith("data: "):
            yield name, json.loads(text.removeprefix("data: "))


@dataclass
class Scene:
    """The running parts."""

    server: ApiServer
    client: Client
    console: Console
    browser: aiohttp.ClientSession
    url: str

    async def get(self, path: str) -> Any:
        async with self.browser.get(self.url + path) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def events(self) -> AsyncGenerator[tuple[str, Any]]:
        async with self.browser.get(f"{self.url}/api/events") as response, aclosing(sse(response)) as found:
            async for each in found:
                yield each

    async def until(self, name: str) -> Any:
        """The first event with that Workspace in a row."""
        async with asyncio.timeout(20), aclosing(self.events()) as found:
            async for kind, data in found:
                rows: list[dict[str, Any]] = []
                if kind in {"snapshot", "change"}:
                    rows = data.get("workspaces", data.get("upserts", []))
                for row in rows:
                    if row["name"] == name:
                        return row
        raise AssertionError(name)


async def opened(stack: AsyncExitStack, settings: ConsoleSettings | None = None, **parts: Any) -> Scene:
    """Starts a server and a console, and signs a browser in."""
    server = ApiServer()
    listening = await stack.enter_async_context(serve(server))
    transport = HttpTransport(ClusterConfig(server=listening.url, credentials=NoCredentials()))
    stack.push_async_callback(transport.close)
    client = Client(transport, field_manager="test")
    for definition in crds.manifests():
        await client.apply(CustomResourceDefinition.model_validate(definition))
    settings = settings or ConsoleSettings(port=0, cluster="test", allow_writes=True)
    console = await stack.enter_async_context(running_console(settings, transport, user="tester", **parts))
    browser = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)))
    async with browser.get(console.link, allow_redirects=False) as answer:
        assert answer.status == 303
        assert answer.headers["Location"] == "/"
    return Scene(server, client, console, browser, console.url.rstrip("/"))


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        yield await opened(stack)
