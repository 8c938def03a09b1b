"""What the client tells about its requests: the hook behind the `rest_client_*` metrics and request spans.

`kaito.runtime.metrics` implements it; the client works without.
"""

from typing import Protocol, final


class RequestObserver(Protocol):
    """Told about every attempt of every request. Must not block and must not raise."""

    def finished(self, *, method: str, host: str, code: str, seconds: float, sent: int, received: int) -> None:
        """An attempt ended; `code` is the HTTP status, or `<error>` when no answer came; sizes are body bytes."""
        ...

    def retried(self, *, method: str, host: str, code: str) -> None:
        """An attempt will be repeated because of `code`."""
        ...

    def limited(self, *, method: str, host: str, seconds: float) -> None:
        """The client-side limiter held a request for that long."""
        ...


@final
class NoObserver:
    """Listens to nothing."""

    def finished(self, *, method: str, host: str, code: str, seconds: float, sent: int, received: int) -> None:
        """Ignored."""

    def retried(self, *, method: str, host: str, code: str) -> None:
        """Ignored."""

    def limited(self, *, method: str, host: str, seconds: float) -> None:
        """Ignored."""
