"""Allocates addresses on loopback: one per pod, one per Service, so that well-known ports never collide.

On Linux all of 127.0.0.0/8 answers. Where it does not (macOS), every pod shares 127.0.0.1 and only one can own a port;
`has_loopback_range` returns which case applies.
"""

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Iterator
from typing import final

from kaito.local.time_limit import time_limit

POD_NETWORK = ipaddress.IPv4Network("127.64.0.0/16")
SERVICE_NETWORK = ipaddress.IPv4Network("127.96.0.0/16")

LISTEN_SECONDS = 120.0
"""Time limit of `wait_until_listening`. It is long, because a busy machine starts a program slowly; `processes.watched`
reports the exit of a child process at once."""


def has_loopback_range() -> bool:
    """Whether addresses of 127.0.0.0/8 other than 127.0.0.1 can be bound."""
    with socket.socket() as probe:
        try:
            probe.bind((str(POD_NETWORK[10]), 0))
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            return False
    return True


@final
class PodAddresses:
    """Allocates pod addresses; an address is reused last after its pod has ended."""

    def __init__(self) -> None:
        self._fresh: Iterator[ipaddress.IPv4Address] = POD_NETWORK.hosts() if has_loopback_range() else iter(())
        self._held: dict[str, str] = {}
        self._returned: list[str] = []

    def take(self, uid: str) -> str:
        """The address of the pod with that UID, the same at every call."""
        if uid not in self._held:
            fresh = next(self._fresh, None)
            self._held[uid] = str(fresh) if fresh else self._returned.pop(0) if self._returned else "127.0.0.1"
        return self._held[uid]

    def give_back(self, uid: str) -> None:
        """Release the address of a pod."""
        address = self._held.pop(uid, None)
        if address and address != "127.0.0.1":
            self._returned.append(address)


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def wait_until_listening(port: int, program: str) -> None:
    """Wait until a program accepts connections on a loopback port.

    Raises:
        TimeoutError: it did not within `LISTEN_SECONDS`.
    """
    async with time_limit(LISTEN_SECONDS, f"{program} to listen on port {port}"):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
