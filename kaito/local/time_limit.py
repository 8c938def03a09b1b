"""Time limits whose error names what was awaited; `asyncio.timeout` raises an error without a message."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator


@contextlib.asynccontextmanager
async def time_limit(seconds: float, what: str) -> AsyncGenerator[None]:
    """Limits the duration of the body to `seconds`.

    Raises:
        TimeoutError: the body did not end in time; the message contains `what`. Other timeouts pass through.
    """
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        message = f"waited {seconds:.0f} seconds for {what}"
        raise TimeoutError(message) from error
