"""Client of the provider's HTTP API, which knows nothing of Kubernetes."""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from kaito.runtime import Manager
from kaito.runtime.errors import Retry

TOO_MANY, UNAVAILABLE, NOT_FOUND = 429, 503, 404


class Provider:
    """Records of one account."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def get(self, host: str) -> str | None:
        """Returns the address of a record, or None."""
        found = await self._call("GET", host)
        return None if found is None else str(found["address"])

    async def put(self, host: str, address: str) -> None:
        """Creates or replaces a record."""
        await self._call("PUT", host, {"address": address})

    async def delete(self, host: str) -> None:
        """Deletes a record, if it exists."""
        await self._call("DELETE", host)

    async def _call(self, method: str, host: str, body: object = None) -> dict[str, Any] | None:
        """Returns the answer, or None if the record does not exist.

        Raises:
            OSError: the provider cannot be reached, or answers with an error.
            Retry: the provider names the time after which it can be called again.
        """
        try:
            async with self._session.request(method, f"/records/{host}", json=body) as response:
                if response.status == NOT_FOUND:
                    return None
                if response.status in {TOO_MANY, UNAVAILABLE} and "retry-after" in response.headers:
                    after = float(response.headers["retry-after"])
                    raise Retry(after, f"the DNS provider answers {response.status}")
                if not response.ok:
                    message = f"the DNS provider answers {response.status}"
                    raise OSError(message)
                found: dict[str, Any] = await response.json()
                return found
        except aiohttp.ClientConnectionError as error:
            message = f"the DNS provider cannot be reached: {error}"
            raise OSError(message) from error


@asynccontextmanager
async def lifespan(manager: Manager) -> AsyncGenerator[Provider]:
    """Opens the provider's session, which lives as long as the manager."""
    timeout = aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(os.environ["DNS_PROVIDER_URL"], timeout=timeout) as session:
        yield Provider(session)
