"""Opens WebSockets to subresources of pods, with the identity and the fence of a client."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from kaito.runtime.client.client import Client
from kaito.runtime.client.sender import failure
from kaito.runtime.client.transport import UpgradeRefused, WebSocket, WebSocketTransport, sending_guarded_by
from kaito.runtime.errors import ConfigurationError, TransportError


@asynccontextmanager
async def open_channels(client: Client, target: str, protocols: Sequence[str]) -> AsyncGenerator[WebSocket]:
    """Opens a WebSocket with one of the subprotocols.

    Raises:
        ApiError: the server or the kubelet rejected the request.
        TransportError: there is no connection, or the server does not support WebSockets or the subprotocols.
        ConfigurationError: the client's transport cannot open WebSockets.
    """
    transport, what = client.transport, f"GET {target.partition('?')[0]}"
    if not isinstance(transport, WebSocketTransport):
        raise ConfigurationError(f"{what}: {type(transport).__name__} cannot open WebSockets")
    if client.fence is not None:
        client.fence()
    headers = {"user-agent": client.user_agent}
    with sending_guarded_by(client.fence):
        opening = transport.websocket(target, protocols=protocols, headers=headers)
        try:
            socket = await opening.__aenter__()
        except UpgradeRefused as refused:
            reply = refused.reply
            if reply.status < 300:
                raise TransportError(f"{what}: the server answered {reply.status} instead of an upgrade") from None
            raise failure(reply.status, reply.headers, reply.body, what) from None
    try:
        if socket.protocol not in protocols:
            known = ", ".join(protocols)
            raise TransportError(f"{what}: the server has none of the protocols {known} (Kubernetes 1.30 has them)")
        yield socket
    finally:
        await opening.__aexit__(None, None, None)
