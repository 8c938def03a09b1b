"""Allocates addresses on loopback: one per pod, one per Service, so that well-known ports never collide.

On Linux all of 127.0.0.0/8 answers, and each local cluster has ranges of its own (`reserve_networks`). Where it does
not (macOS), every pod shares 127.0.0.1 and only one can own a port.
"""

import asyncio
import contextlib
import errno
import ipaddress
import socket
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import final

from kaito.local.time_limit import time_limit

_FIRST_POD_NETWORK = ipaddress.IPv4Network("127.64.0.0/16")
_FIRST_SERVICE_NETWORK = ipaddress.IPv4Network("127.96.0.0/16")
MAX_CLUSTERS = 32
"""Local clusters that can run at once: each has a /16 of 127.64.0.0/11 for pods, and one of 127.96.0.0/11."""

_RESERVED_PORT = 64000
"""A port of the last address of a pod network. It is bound, and never listened on, while a cluster uses the network."""

LISTEN_SECONDS = 120.0
"""Time limit of `wait_until_listening`. It is long, because a busy machine starts a program slowly; `processes.watched`
reports the exit of a child process at once."""


class NoFreeNetwork(RuntimeError):
    """Too many local clusters run on this machine."""


@final
@dataclass(frozen=True, slots=True)
class Networks:
    """The address ranges of one local cluster."""

    pods: ipaddress.IPv4Network | None
    """None if only 127.0.0.1 can be bound (macOS), which all pods share."""
    services: ipaddress.IPv4Network


@contextlib.contextmanager
def reserve_networks() -> Generator[Networks]:
    """Reserves ranges that no other local cluster on this machine uses, while the body runs.

    With the same addresses, a request for a pod of one cluster reaches the pod of another. The reservation is a bound
    socket: the kernel releases it also if the process is killed.

    Raises:
        NoFreeNetwork: `MAX_CLUSTERS` run already.
    """
    for number in range(MAX_CLUSTERS):
        pods, services = _nth(_FIRST_POD_NETWORK, number), _nth(_FIRST_SERVICE_NETWORK, number)
        with socket.socket() as reservation:
            try:
                reservation.bind((str(pods[-2]), _RESERVED_PORT))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                if error.errno != errno.EADDRNOTAVAIL:
                    raise
                yield Networks(None, services)
                return
            yield Networks(pods, services)
            return
    raise NoFreeNetwork(f"{MAX_CLUSTERS} local clusters run on this machine: end one of them")


def _nth(network: ipaddress.IPv4Network, number: int) -> ipaddress.IPv4Network:
    """Returns the n-th network of the same size after the given one."""
    return ipaddress.IPv4Network((int(network.network_address) + number * network.num_addresses, network.prefixlen))


@final
class PodAddresses:
    """Allocates pod addresses; an address is reused last after its pod has ended.

    Args:
        network: the pods' range; None if they share 127.0.0.1.
    """

    def __init__(self, network: ipaddress.IPv4Network | None) -> None:
        self._fresh: Iterator[ipaddress.IPv4Address] = iter(()) if network is None else network.hosts()
        self._held: dict[str, str] = {}
        self._returned: list[str] = []

    def take(self, uid: str) -> str:
        """The address of the pod with that UID, the same at every call."""
        if uid not in self._held:
            fresh = next(self._fresh, None)
            self._held[uid] = str(fresh) if fresh else self._returned.pop(0) if self._returned else "127.0.0.1"
        return self._held[uid]

    def give_back(self, uid: str) -> None:
        """Releases the address of a pod."""
        address = self._held.pop(uid, None)
        if address and address != "127.0.0.1":
            self._returned.append(address)


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def wait_until_listening(port: int, program: str) -> None:
    """Waits until a program accepts connections on a loopback port.

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
