"""Callbacks for requests of the client, used by the `rest_client_*` metrics and by `ClusterClock`.

`kaito.runtime.manager` implements them; they are optional.
"""

from typing import Protocol, final


class RequestObserver(Protocol):
    """Receives every attempt of every request. Must not block and must not raise."""

    def finished(self, *, method: str, host: str, code: str, seconds: float, sent: int, received: int) -> None:
        """Records an attempt; `code` is the HTTP status, or `<error>` without a response; sizes are body bytes."""
        ...

    def retried(self, *, method: str, host: str, code: str) -> None:
        """Records that an attempt is repeated because of `code`."""
        ...

    def limited(self, *, method: str, host: str, seconds: float) -> None:
        """Records the delay of a request by the client-side rate limiter."""
        ...

    def dated(self, date: str, seconds: float) -> None:
        """Records the header `Date` of a response that has just been received, `seconds` after the request."""
        ...


@final
class NoObserver:
    """Ignores all requests."""

    def finished(self, *, method: str, host: str, code: str, seconds: float, sent: int, received: int) -> None:
        """Ignored."""

    def retried(self, *, method: str, host: str, code: str) -> None:
        """Ignored."""

    def limited(self, *, method: str, host: str, seconds: float) -> None:
        """Ignored."""

    def dated(self, date: str, seconds: float) -> None:
        """Ignored."""
