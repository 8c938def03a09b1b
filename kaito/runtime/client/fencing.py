"""Fences HTTP clients of other systems with the lease: a cloud's SDK, or an aiohttp session.

    from kaito.runtime.client.transport import sending_guarded_by

    async with aiohttp.ClientSession(connector=FencedConnector()) as session:
        with sending_guarded_by(request.fence):
            await session.put(url)  # raises NotLeader instead of being sent once the lease may have expired

`sending_guarded_by` and `check_send_guard` come from `kaito.runtime.client.transport`; a client with another connection
layer calls `check_send_guard` immediately before it sends the first byte of a request.
"""

from typing import final

import aiohttp
from aiohttp.tracing import Trace

from kaito.runtime.client.transport import check_send_guard


@final
class FencedConnector(aiohttp.TCPConnector):
    """Connector that checks the guard of a request again, after a connection is acquired and before it is written to.

    Waiting for a free connection, DNS and TLS may take seconds, and the process may be suspended meanwhile. aiohttp's
    tracing hooks could do the same, but add 10 % to the time of every request.
    """

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> aiohttp.connector.Connection:
        """Connects as aiohttp does; closes the connection and raises if the guard raises."""
        connection = await super().connect(req, traces, timeout)
        try:
            check_send_guard()
        except BaseException:
            connection.close()
            raise
        return connection
