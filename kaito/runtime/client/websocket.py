"""WebSockets to an API server, with aiohttp, which supports proxies as well. `http` opens one for each stream."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, final

import aiohttp
import yarl
from multidict import CIMultiDict

from kaito.runtime.client.config import ClusterConfig
from kaito.runtime.client.fencing import FencedConnector
from kaito.runtime.client.http1 import Endpoint
from kaito.runtime.client.sockets import keepalive_socket
from kaito.runtime.client.transport import Reply, UpgradeRefused, without_tracebacks
from kaito.runtime.errors import TransportError

MESSAGE_BYTES = 2**24
"""Longest message that is accepted; servers send at most 64 KiB."""

REFUSAL_BYTES = 2**20
"""Longest response of a server that refuses the upgrade; the rest is dropped."""

CLOSE_SECONDS = 1.0
"""Time that the server has to answer the end of a connection; then it is closed without an answer."""

_DATA = {aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT}


@asynccontextmanager
async def open_websocket(
    config: ClusterConfig,
    endpoint: Endpoint,
    target: str,
    *,
    protocols: Sequence[str],
    headers: Sequence[tuple[str, str]],
    login: Mapping[str, str],
    connect: float,
    header_seconds: float,
) -> AsyncGenerator["HttpWebSocket"]:
    """Opens a WebSocket. `login` is the header with the credentials of the proxy; the others are those of `http`.

    Raises:
        UpgradeRefused: the server answered with another response.
        OSError: there is no connection, or no response in time.
    """
    refusals: list[bytes] = []

    class KeptResponse(aiohttp.ClientResponse):
        """Reads the body of a refusal, which aiohttp drops."""

        async def start(self, connection: Any) -> aiohttp.ClientResponse:
            started = await super().start(connection)
            if self.status != 101:
                refusals.append(await self.content.read(REFUSAL_BYTES))
            return started

    tls = endpoint.tls
    connector = FencedConnector(ssl=tls if tls is not None else True, socket_factory=keepalive_socket, force_close=True)
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        response_class=KeptResponse,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect),
    ) as session:
        url = yarl.URL(config.server.rstrip("/") + target, encoded=True)
        try:
            async with asyncio.timeout(header_seconds):
                socket = await session.ws_connect(
                    url,
                    protocols=protocols,
                    headers=CIMultiDict(headers),
                    max_msg_size=MESSAGE_BYTES,
                    proxy=yarl.URL(config.proxy).with_user(None) if config.proxy else None,  # errors show it
                    proxy_headers=login if config.proxy and tls is not None and login else None,  # of CONNECT
                    server_hostname=config.tls.server_name or None if tls is not None else None,
                )
        except aiohttp.WSServerHandshakeError as error:
            received = {name.lower(): value for name, value in (error.headers or {}).items()}
            raise UpgradeRefused(Reply(error.status, received, b"".join(refusals))) from without_tracebacks(error)
        except aiohttp.ClientError as error:
            raise _as_os_error(error) from without_tracebacks(error)
        try:
            yield HttpWebSocket(socket, f"GET {target.partition('?')[0]}")
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await socket.close()


@final
class HttpWebSocket:
    """An open WebSocket.

    Args:
        socket: the connection.
        what: the request, for messages.
    """

    def __init__(self, socket: "aiohttp.ClientWebSocketResponse[bool]", what: str) -> None:
        self._socket = socket
        self._what = what
        self._is_closed = False

    @property
    def protocol(self) -> str:
        """The subprotocol that the server has chosen; empty for none."""
        return self._socket.protocol or ""

    async def send(self, data: bytes) -> None:
        """Sends a message; waits while the server reads more slowly.

        Raises:
            TransportError: the connection is closed.
        """
        try:
            await self._socket.send_bytes(data)
        except (aiohttp.ClientError, OSError) as error:
            message = f"{self._what}: {str(error) or 'the connection is closed'}"
            raise TransportError(message) from without_tracebacks(error)

    async def receive(self) -> bytes | None:
        """Returns the next message; None once the server has closed the connection in order.

        Raises:
            TransportError: the connection was lost, or a message is malformed.
        """
        if self._is_closed:
            return None
        message = await self._socket.receive()
        if message.type in _DATA:
            data: bytes | str = message.data
            return data.encode() if isinstance(data, str) else data
        if message.type is aiohttp.WSMsgType.CLOSE:
            self._is_closed = True
            if message.data in {aiohttp.WSCloseCode.OK, aiohttp.WSCloseCode.GOING_AWAY, None, 0, 1005}:
                return None
            raise TransportError(f"{self._what}: closed by the server: {message.extra or ''} (code {message.data})")
        problem = message.data if message.type is aiohttp.WSMsgType.ERROR else "the connection was lost"
        raise TransportError(f"{self._what}: {problem}")


def _as_os_error(error: aiohttp.ClientError) -> OSError:
    return error if isinstance(error, OSError) else ConnectionError(str(error) or type(error).__name__)
