"""HTTP/1.1 for requests and streams: connections with one reader callback each, and their pool.

`kaito.runtime.client.http` uses it without a proxy. It has the guarantees of its previous client, aiohttp, and takes
less than half of the CPU per request: no stream objects, no tasks, and no copy of each TLS record through a memory
buffer.
"""

from kaito.runtime.client.http1.pool import ConnectionPool as ConnectionPool, Endpoint as Endpoint
from kaito.runtime.client.http1.stream import ResponseStream as ResponseStream
