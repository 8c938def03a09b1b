"""Serves Services on loopback: a listener per Service port that forwards to a ready pod.

The Service's own cluster IP is used where it lies in the loopback range and the port may be bound; otherwise any free
port of 127.0.0.1. `endpoints` returns it for the live view.
"""

import asyncio
import contextlib
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_address
from typing import final

from kaito.runtime.client import Api
from kaito.runtime.controller import Controller
from kaito.runtime.kinds import Pod, Service, ServicePort
from kaito.runtime.meta import ObjectKey
from kaito.runtime.reconcile import Again, Request
from kaito.runtime.tasks import together

CHUNK_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The listen address of a Service port."""

    service: ObjectKey
    port: int
    host: str
    bound_port: int

    @property
    def url(self) -> str:
        """The URL for curl."""
        return f"http://{self.host}" if self.bound_port == 80 else f"http://{self.host}:{self.bound_port}"


@final
class ServiceProxy:
    """Keeps one listener per Service port for as long as the Service exists.

    Args:
        network: range of the cluster IPs.
    """

    def __init__(self, network: IPv4Network) -> None:
        self._network = network
        self._listeners: dict[tuple[ObjectKey, int], tuple[asyncio.Server, Endpoint]] = {}

    @property
    def endpoints(self) -> list[Endpoint]:
        """Every listener."""
        return [endpoint for _, endpoint in self._listeners.values()]

    def controller(self) -> Controller[Service]:
        """The controller that opens listeners."""
        return Controller(Service, self._open, name="service-proxy", workers=1)

    async def sweep(self, api: Api) -> None:
        """Closes the listeners of deleted Services."""
        living = {service.key for service in await api.list(Service)}
        for key in [key for key in self._listeners if key[0] not in living]:
            server, _ = self._listeners.pop(key)
            server.close()

    def close(self) -> None:
        """Closes every listener."""
        for server, _ in self._listeners.values():
            server.close()
        self._listeners.clear()

    async def _open(self, request: Request[Service]) -> Again | None:
        service = request.object
        address = service.spec.cluster_ip or ""
        if address in {"", "None"}:
            return None
        for port in service.spec.ports:
            if (service.key, port.port) not in self._listeners:
                await self._listen(service, port, address, request.api)
        return None

    async def _listen(self, service: Service, port: ServicePort, address: str, api: Api) -> None:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                await self._forward(service, port, api, reader, writer)
            writer.close()

        wanted = (address, port.port) if ip_address(address) in self._network else ("127.0.0.1", 0)
        try:
            server = await asyncio.start_server(connected, *wanted)
        except OSError:  # a privileged port, or one that is in use
            server = await asyncio.start_server(connected, "127.0.0.1", 0)
        host, bound = server.sockets[0].getsockname()[:2]
        self._listeners[service.key, port.port] = (server, Endpoint(service.key, port.port, str(host), int(bound)))

    async def _forward(
        self, service: Service, port: ServicePort, api: Api, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        pods = await api.list(Pod, namespace=service.namespace, labels=service.spec.selector)
        ready = [pod for pod in pods if pod.is_ready or service.spec.publish_not_ready_addresses]
        if not ready or ready[0].status.pod_ip is None:
            return  # without a ready pod the connection is closed, as by an iptables REJECT
        target = _target_port(port, ready[0])
        upstream_reader, upstream_writer = await asyncio.open_connection(ready[0].status.pod_ip, target)
        try:
            await together(_pump(reader, upstream_writer), _pump(upstream_reader, writer))
        finally:
            upstream_writer.close()


def _target_port(port: ServicePort, pod: Pod) -> int:
    """The number behind `targetPort`, which may be the name of a container's port."""
    target = port.target_port if port.target_port is not None else port.port
    if isinstance(target, int):
        return target
    names = {p.name: p.container_port for container in pod.spec.containers for p in container.ports}
    return names.get(target, port.port)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await source.read(CHUNK_BYTES):
            sink.write(data)
            await sink.drain()
        if sink.can_write_eof():
            sink.write_eof()
