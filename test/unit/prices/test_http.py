"""The HTTP client of price APIs against a server on this machine: a hang, half a body, a large body, a redirect."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from kaito.prices.http import FetchError, Response, fetcher

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(answer: Answer) -> AsyncGenerator[str]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await answer(writer)
        writer.close()

    listening = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/prices?$filter=a%20eq%20%27b%27"


def sends(*parts: bytes) -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
        await writer.drain()

    return answer


async def get(answer: Answer, *, seconds: float = 10.0, most: int = 1000) -> Response:
    async with server(answer) as url, fetcher(request_seconds=seconds, max_body_bytes=most) as fetch:
        return await fetch(url)


async def test_a_complete_response_is_returned_with_its_status() -> None:
    ok = await get(sends(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"))
    assert ok == Response(200, b"{}")
    busy = await get(sends(b"HTTP/1.1 429 Too Many\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"))
    assert busy == Response(429, b"", "7")
    moved = await get(sends(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n"))
    assert moved.status == 302


async def test_half_a_body_is_an_error() -> None:
    with pytest.raises(FetchError):
        await get(sends(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", b'{"Items": ['))


async def test_a_body_that_is_too_large_is_an_error() -> None:
    with pytest.raises(FetchError, match="larger than"):
        await get(sends(b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n" + b"x" * 1001))


async def test_a_server_that_hangs_is_an_error_after_the_time_limit() -> None:
    released = asyncio.Event()

    async def hang(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        await released.wait()

    with pytest.raises(FetchError, match=r"no complete response within 0\.05 s"):
        await get_and_release(hang, released)


async def get_and_release(answer: Answer, released: asyncio.Event) -> None:
    async with server(answer) as url, fetcher(request_seconds=0.05) as fetch:
        try:
            await fetch(url)
        finally:
            released.set()


async def test_an_unreachable_server_and_a_wrong_url_are_errors() -> None:
    async with fetcher() as fetch:
        for url in ("http://127.0.0.1:1/", "nonsense", "http://"):
            with pytest.raises(FetchError):
                await fetch(url)
