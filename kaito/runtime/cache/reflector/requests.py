"""Sends the reflector's requests, with the User-Agent and the metrics of the client.

They do not use the client, because its retries and rate limiter are for single requests: a reflector has its own
backoff, and a watch is one request of several minutes.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Final, final

from kaito.runtime.client.agent import user_agent as own_agent
from kaito.runtime.client.observe import NoObserver, RequestObserver
from kaito.runtime.client.transport import Reply, StreamReply, Transport
from kaito.runtime.clock import monotonic
from kaito.runtime.errors import TransportError

LIST_SECONDS: Final = 120.0
"""Time limit of one page. A server answering from its watch cache sends everything in one."""

_NO_ANSWER = "<error>"


@final
class Requests:
    """GETs of one cache.

    Args:
        transport: The network.
        user_agent: User-Agent of the requests.
        observer: Called for every request; for a watch when the server has accepted or rejected it.
    """

    def __init__(self, transport: Transport, *, user_agent: str = "", observer: RequestObserver | None = None) -> None:
        self._transport = transport
        self._agent = user_agent or own_agent("kaito-runtime")
        self._observer = observer or NoObserver()

    async def get(self, target: str, headers: Mapping[str, str]) -> Reply:
        """The whole response. Raises `TransportError`."""
        started = monotonic()
        code, received = _NO_ANSWER, 0
        try:
            reply = await self._transport.request("GET", target, headers=self._named(headers), timeout=LIST_SECONDS)
            code, received = str(reply.status), len(reply.body)
            self._observer.dated(reply.headers.get("date", ""), monotonic() - started)
            return reply
        finally:
            self._finished(code, started, received)

    @asynccontextmanager
    async def stream(self, target: str, headers: Mapping[str, str]) -> AsyncGenerator[StreamReply]:
        """The response as a stream. Raises `TransportError`."""
        started = monotonic()
        reported = False
        try:
            async with self._transport.stream("GET", target, headers=self._named(headers)) as reply:
                reported = True
                self._observer.dated(reply.headers.get("date", ""), monotonic() - started)
                self._finished(str(reply.status), started, 0)
                yield reply
        except TransportError:
            if not reported:
                self._finished(_NO_ANSWER, started, 0)
            raise

    def _named(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {"user-agent": self._agent, **headers}

    def _finished(self, code: str, started: float, received: int) -> None:
        self._observer.finished(
            method="GET",
            host=self._transport.host,
            code=code,
            seconds=monotonic() - started,
            sent=0,
            received=received,
        )
