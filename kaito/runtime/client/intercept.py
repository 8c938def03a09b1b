"""Interceptors: a user's code around every request of a client, to watch, change, refuse or answer it.

`Client.intercepted` and `Api.intercepted` install them. One interceptor sees one call with all its repetitions, below
the typed verbs: method, target and body, and the answer or the typed error. Streams of the cache do not pass here.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias, final

from kaito.runtime.client.sender import ApiRequest
from kaito.runtime.client.transport import Reply

Interceptor: TypeAlias = Callable[[ApiRequest, Callable[[ApiRequest], Awaitable[Reply]]], Awaitable[Reply]]
"""Called with a request and with what sends it on; what it returns or raises is what the caller gets."""


class Sending(Protocol):
    """Whatever takes requests: the sender, or an interceptor before it."""

    async def send(self, request: ApiRequest) -> Reply:
        """The successful answer. Raises as `Sender.send`."""
        ...


@final
class Intercepted:
    """A sender behind an interceptor."""

    def __init__(self, inner: Sending, interceptor: Interceptor) -> None:
        self._inner = inner
        self._interceptor = interceptor

    async def send(self, request: ApiRequest) -> Reply:
        """What the interceptor makes of it."""
        return await self._interceptor(request, self._inner.send)
