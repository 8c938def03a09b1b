"""Simulated crashes: a transport whose process dies at its n-th write, to test that a restarted operator recovers.

    crash = CrashPoint(writes=3)
    manager = world.manager(controller, transport=CrashingTransport(world.transport(), crash))

The last write takes effect on the server and its response is lost, which is the hardest case for an operator: the
restarted process must find out what its predecessor has done. One `CrashPoint` may be shared by several transports, for
example by those to the cluster and to a cloud, so that the process dies at its n-th write to any of them.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import final

from kaito.runtime.client.transport import CONNECT_SECONDS, NO_HEADERS, REQUEST_SECONDS, Reply, StreamReply
from kaito.runtime.errors import TransportError
from kaito.runtime.testing.transport import InMemoryTransport


@final
class CrashPoint:
    """The number of writes after which a simulated process crashes."""

    def __init__(self, writes: int) -> None:
        self._remaining = writes

    def count_write(self) -> None:
        """Counts a write that has reached its server."""
        self._remaining -= 1

    def has_crashed(self) -> bool:
        """Whether the process is dead: it sends no requests and receives no responses."""
        return self._remaining <= 0


@final
class CrashingTransport:
    """An in-memory transport of a process that crashes.

    Args:
        inner: the transport to the server.
        crash: when to crash; every request with another method than GET is a write.
    """

    def __init__(self, inner: InMemoryTransport, crash: CrashPoint) -> None:
        self._inner = inner
        self._crash = crash

    @property
    def host(self) -> str:
        """The `host` label of metrics."""
        return self._inner.host

    async def request(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] = NO_HEADERS,
        body: bytes | None = None,
        timeout: float = REQUEST_SECONDS,
    ) -> Reply:
        """Sends one request; raises `TransportError` from the crash on, for the write that causes it as well."""
        self._check()
        reply = await self._inner.request(method, target, headers=headers, body=body, timeout=timeout)
        if method != "GET":
            self._crash.count_write()
        if self._crash.has_crashed():
            self._inner.break_streams()
        self._check()
        return reply

    def stream(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] = NO_HEADERS,
        connect: float = CONNECT_SECONDS,
        idle: float | None = None,
    ) -> AbstractAsyncContextManager[StreamReply]:
        """Opens a stream; raises `TransportError` after the crash."""
        self._check()
        return self._inner.stream(method, target, headers=headers, connect=connect, idle=idle)

    async def close(self) -> None:
        """Closes the inner transport."""
        await self._inner.close()

    def _check(self) -> None:
        if self._crash.has_crashed():
            message = f"{self.host}: the simulated process has crashed"
            raise TransportError(message)
