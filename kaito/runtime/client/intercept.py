"""Interceptors: user code around every request of a client, to observe, change, reject or answer it.

`Client.intercepted` and `Api.intercepted` install them. An interceptor is called once per call, around all attempts,
below the typed verbs: it receives method, target and body, and the response or the typed error. Watches of the cache
are not intercepted.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias, final

from kaito.runtime.client.sender import ApiRequest
from kaito.runtime.client.transport import Reply

Interceptor: TypeAlias = Callable[[ApiRequest, Callable[[ApiRequest], Awaitable[Reply]]], Awaitable[Reply]]
"""Called with a request and the function that sends it; its result or exception is that of the call."""


class Sending(Protocol):
    """Sends requests: implemented by `Sender` and `Intercepted`."""

    async def send(self, request: ApiRequest) -> Reply:
        """Sends a request and returns the successful response. Raises the errors of `Sender.send`."""
        ...


@final
class Intercepted:
    """Sender that passes requests through an interceptor."""

    def __init__(self, inner: Sending, interceptor: Interceptor) -> None:
        self._inner = inner
        self._interceptor = interceptor

    async def send(self, request: ApiRequest) -> Reply:
        """Calls the interceptor."""
        return await self._interceptor(request, self._inner.send)
