"""The fence for HTTP clients other than ours: a cloud's SDK, or an aiohttp session that writes to another system.

    from kaito.runtime.client.transport import sending_guarded_by

    async with aiohttp.ClientSession(connector=FencedConnector()) as session:
        with sending_guarded_by(request.fence):
            await session.put(url)  # raises NotLeader instead of being sent once the lease may have expired

`sending_guarded_by` and `check_send_guard` come from `kaito.runtime.client.transport`; a client with another connection
layer calls `check_send_guard` itself, right before the first byte of a request leaves.
"""

from typing import final

import aiohttp
from aiohttp.tracing import Trace

from kaito.runtime.client.transport import check_send_guard


@final
class FencedConnector(aiohttp.TCPConnector):
    """Checks the guard of the request once more between having a connection and writing to it.

    Waiting for a free connection, for DNS and for TLS may take seconds, and the process may be stopped meanwhile.
    aiohttp's tracing could do the same, but costs a tenth of the whole request.
    """

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> aiohttp.connector.Connection:
        """As aiohttp's; raises what the guard raises and closes the connection then."""
        connection = await super().connect(req, traces, timeout)
        try:
            check_send_guard()
        except BaseException:
            connection.close()
            raise
        return connection
