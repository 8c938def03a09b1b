"""A token rotated while a watch is open: the watch goes on where it was, with the new token."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from kaito.runtime.cache import Cache, Cached
from kaito.runtime.client.config import ClusterConfig, TokenFile
from kaito.runtime.client.http import HttpTransport
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.tasks import TaskScope


def line(name: str, version: int) -> bytes:
    metadata = {"name": name, "namespace": "ns", "uid": name, "resourceVersion": str(version)}
    return json.dumps({"type": "ADDED", "object": {"metadata": metadata}}).encode() + b"\n"


class Server:
    """Accepts one token; sends one event per watch and closes it on request."""

    def __init__(self) -> None:
        self.token = "first"
        self.requested: list[tuple[str, str, int]] = []
        self.end = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode().lower():
                query = parse_qs(urlsplit(head.split()[1]).query)
                authorized = f"bearer {self.token}" in head
                what = "watch" if "watch" in query else "list"
                self.requested.append((what, query.get("resourceversion", [""])[0], 200 if authorized else 401))
                if not authorized:
                    writer.write(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\n{}")
                elif what == "list":
                    body = b'{"metadata": {"resourceVersion": "5"}, "items": []}'
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
                else:
                    watches = sum(1 for what, _, code in self.requested if (what, code) == ("watch", 200))
                    text = line(f"c{watches}", 10 * watches)
                    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                    writer.write(b"%x\r\n%s\r\n" % (len(text), text))
                    await writer.drain()
                    await self.end.wait()
                    self.end.clear()
                    writer.write(b"0\r\n\r\n")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def served() -> AsyncGenerator[tuple[Server, str]]:
    served = Server()
    listening = await asyncio.start_server(served.serve, "127.0.0.1", 0)
    try:
        yield served, f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()


async def until(cache: Cache, *names: str) -> None:
    async with asyncio.timeout(10):
        received = asyncio.Event()
        cache.informer(ConfigMap).subscribe(lambda _: received.set(), name="until")
        while [found.name for found in cache.list(ConfigMap)] != list(names):
            received.clear()
            await received.wait()


@pytest.mark.conformance(25)
async def test_a_rotated_token_is_read_again_and_the_watch_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kaito.runtime.cache.reflector.reflector.REOPEN_SECONDS", 0.0)
    file = tmp_path / "token"
    file.write_text("first")
    async with served() as (server, url):
        transport = HttpTransport(ClusterConfig(server=url, credentials=TokenFile(file)))
        cache = Cache(transport, [Cached(ConfigMap)], streaming=False)
        async with TaskScope("test") as scope:
            scope.spawn(cache.run(), name="cache")
            await cache.wait_synced(10)
            await until(cache, "c1")
            server.token = "second"
            file.write_text("second")
            server.end.set()
            await until(cache, "c1", "c2")
        await transport.close()
        assert server.requested == [("list", "0", 200), ("watch", "5", 200), ("watch", "10", 401), ("watch", "10", 200)]
