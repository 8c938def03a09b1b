"""The failure of a read, as a condition reports it."""

from typing import Final, final


@final
class ModelUnavailable(Exception):
    """The facts of a model cannot be read; the message contains the remedy."""

    def __init__(
        self, reason: str, message: str, *, retry_after: float | None = None, is_transient: bool = False
    ) -> None:
        super().__init__(message)
        self.reason: Final = reason
        """Reason of the condition."""
        self.message: Final = message
        self.retry_after: Final = retry_after
        """Seconds to wait by the header `Retry-After`; None if it does not."""
        self.is_transient: Final = is_transient
        """Whether a later attempt may succeed without a change by the user."""
