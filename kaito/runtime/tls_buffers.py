"""Limits the memory of TLS connections of asyncio.

asyncio gives every TLS connection a read buffer of 256 KiB, also before the handshake: 1,000 clients that connect and
send nothing would take 300 MiB. A TLS record has 16 KiB at most, and asyncio decrypts one at a time, so that a smaller
buffer only adds calls of `recv`.
"""

import asyncio.sslproto
from typing import Final

BUFFER_BYTES: Final = 64 * 1024
"""Size of the buffer, four records."""


def limit_tls_buffers() -> None:
    """Limits the buffer of the TLS connections that this process opens and accepts from now on."""
    asyncio.sslproto.SSLProtocol.max_size = BUFFER_BYTES
