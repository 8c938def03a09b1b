"""Creates the sockets of connections to an API server."""

import socket
from typing import Any, Final

_TCP_KEEPALIVE: Final = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
"""Detects a lost peer after a minute; HTTP/1.1 has no ping."""


def keepalive_socket(address: tuple[Any, ...]) -> socket.socket:
    """Creates a non-blocking TCP socket for an address as `getaddrinfo` returns it."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.settimeout(0)  # non-blocking
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name, value in _TCP_KEEPALIVE:
        if hasattr(socket, name):  # spelled differently outside of Linux
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made
