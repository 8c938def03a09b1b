"""Large watch lines over a real socket: what is unusual passes, what is unreasonable is refused and read anew."""

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog

from kaito.runtime.cache import Cache, Cached
from kaito.runtime.client.config import ClusterConfig, NoCredentials
from kaito.runtime.client.http import HttpTransport
from kaito.runtime.clock import SystemClock
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.tasks import TaskScope

MIB = 2**20


def event(name: str, version: int, size: int) -> bytes:
    metadata = {"name": name, "namespace": "ns", "uid": name, "resourceVersion": str(version)}
    line = json.dumps({"type": "ADDED", "object": {"metadata": metadata, "data": {"k": "x" * size}}})
    return line.encode() + b"\n"


@asynccontextmanager
async def server_sending(*lines: bytes) -> AsyncGenerator[str]:
    """The first list is empty, later ones have `listed`; every watch gets the lines and stays open."""
    items = [json.loads(event("listed", 3, 1))["object"]]
    lists = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal lists
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if b"sendInitialEvents" in head:  # an older server, which must be listed
                    writer.write(b"HTTP/1.1 422 Unprocessable Entity\r\ncontent-length: 2\r\n\r\n{}")
                    continue
                if b"watch=true" not in head:
                    page = {"metadata": {"resourceVersion": "3"}, "items": items}
                    empty: dict[str, Any] = {"metadata": {"resourceVersion": "1"}, "items": []}
                    body = json.dumps(page if lists else empty).encode()
                    lists += 1
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
                    continue
                writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                for line in lines:
                    for start in range(0, len(line), 65536):
                        chunk = line[start : start + 65536]
                        writer.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                        await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@asynccontextmanager
async def cache_of(url: str) -> AsyncGenerator[Cache]:
    transport = HttpTransport(ClusterConfig(server=url, credentials=NoCredentials()))
    cache = Cache(transport, [Cached(ConfigMap)], clock=SystemClock(), rng=random.Random(1))
    try:
        async with TaskScope("test") as scope, asyncio.timeout(20):
            scope.spawn(cache.run(), name="cache")
            yield cache
    finally:
        await transport.close()


async def until(holds: Callable[[], bool]) -> None:
    """Lets the sockets work until it holds; the scope around it has a time limit."""
    while not holds():  # noqa: ASYNC110 -- there is no event to wait for
        await asyncio.sleep(0.002)


@pytest.mark.conformance("client-06")
async def test_client_06_an_event_of_six_mebibytes_passes() -> None:
    async with server_sending(event("big", 2, 6 * MIB)) as url, cache_of(url) as cache:
        await until(lambda: cache.synced and bool(cache.list(ConfigMap)))
        (found,) = cache.list(ConfigMap)
        assert len(found.data["k"]) == 6 * MIB
        assert not cache.stats()[0].relists


@pytest.mark.conformance("client-06")
async def test_client_06_an_event_of_seventeen_mebibytes_is_rejected_with_its_reason_and_read_anew() -> None:
    with structlog.testing.capture_logs() as logged:
        async with server_sending(event("huge", 2, 17 * MIB)) as url, cache_of(url) as cache:
            await until(lambda: bool(cache.stats()[0].relists))
            await until(lambda: [found.name for found in cache.list(ConfigMap)] == ["listed"])
    message = " ".join(str(line) for line in logged)
    assert "16" in message
    assert "x" * 100 not in message


@pytest.mark.conformance("client-07")
async def test_client_07_a_proxys_page_in_the_stream_does_no_harm() -> None:
    page = b"<html><body>502 Bad Gateway</body></html>\n"
    async with server_sending(event("good", 2, 1), page) as url, cache_of(url) as cache:
        await until(lambda: bool(cache.stats()[0].relists))
        assert cache.stats()[0].restarts["malformed"] >= 1
        await until(lambda: [obj.name for obj in cache.list(ConfigMap)] == ["good", "listed"])
