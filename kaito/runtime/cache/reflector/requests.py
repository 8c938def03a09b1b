"""The reflector's requests: our name in every one, and the same metrics as the client's.

They do not go through the client, because its retries and its limiter are for single requests: a reflector has its own
backoff, and a watch is one request for minutes.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Final, final

from kaito.runtime.client.agent import user_agent as own_agent
from kaito.runtime.client.observe import RequestObserver, Unobserved
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
        user_agent: As the server logs it.
        observer: Told about every request; of a watch, when the server accepted or refused it.
    """

    def __init__(self, transport: Transport, *, user_agent: str = "", observer: RequestObserver | None = None) -> None:
        self._transport = transport
        self._agent = user_agent or own_agent("kaito-runtime")
        self._observer = observer or Unobserved()

    async def get(self, target: str, headers: Mapping[str, str]) -> Reply:
        """The whole answer. Raises `TransportError`."""
        started = monotonic()
        code, received = _NO_ANSWER, 0
        try:
            reply = await self._transport.request("GET", target, headers=self._named(headers), timeout=LIST_SECONDS)
            code, received = str(reply.status), len(reply.body)
            return reply
        finally:
            self._finished(code, started, received)

    @asynccontextmanager
    async def stream(self, target: str, headers: Mapping[str, str]) -> AsyncGenerator[StreamReply]:
        """The answer as it arrives. Raises `TransportError`."""
        started = monotonic()
        told = False
        try:
            async with self._transport.stream("GET", target, headers=self._named(headers)) as reply:
                told = True
                self._finished(str(reply.status), started, 0)
                yield reply
        except TransportError:
            if not told:
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
