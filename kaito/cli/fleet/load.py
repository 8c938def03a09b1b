"""Reads what the servers of the models do, from the metrics of their pods, through the API server's proxy.

In a local cluster, where pods are processes of this machine, the pods are read directly.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Final, final

from kaito.api import labels
from kaito.runtime.client import ClusterConfig, HttpTransport, NoCredentials, Transport
from kaito.runtime.errors import KaitoRuntimeError
from kaito.runtime.kinds import Pod
from kaito.workspace.manifests.service import SERVER_PORT
from kaito.workspace.pod_polls import MAX_METRICS_BYTES
from kaito.workspace.server_metrics import RUNNING, WAITING, first_of, read_sums

TIMEOUT_SECONDS: Final = 4.0
MAX_CONCURRENT_READS: Final = 16

LAST_REQUEST: Final = "kaito_last_request_timestamp_seconds"
_READ: Final = frozenset({*RUNNING, *WAITING, LAST_REQUEST})


@final
@dataclass(frozen=True, slots=True)
class Load:
    """What the servers of one Workspace do."""

    running: int = 0
    waiting: int = 0
    last_request: datetime | None = None
    """Time of the last request; None if a server does not report it."""


@final
class LoadReader:
    """Reads the metrics of pods."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._limit = asyncio.Semaphore(MAX_CONCURRENT_READS)
        self.problem = ""
        """Why a server could not be read; empty if all could."""

    async def read(self, pods: Sequence[Pod]) -> dict[tuple[str, str], Load]:
        """Returns the load of each Workspace, by namespace and name, whose servers all answer."""
        self.problem = ""
        serving = [pod for pod in pods if pod.is_ready and not pod.deleting and _is_server(pod)]
        loads = await asyncio.gather(*(self._load(pod) for pod in serving))
        found: dict[tuple[str, str], list[Load | None]] = {}
        for pod, load in zip(serving, loads, strict=True):
            found.setdefault((pod.namespace, pod.labels[labels.WORKSPACE]), []).append(load)
        return {key: _sum(known) for key, each in found.items() if (known := _complete(each)) is not None}

    async def _load(self, pod: Pod) -> Load | None:
        """Returns the load of a pod; None if it cannot be read."""
        async with self._limit:
            try:
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    body = await self._read(pod)
            except (KaitoRuntimeError, TimeoutError) as error:
                self.problem = self.problem or f"pod {pod.key}: {str(error) or 'no answer in time'}"
                return None
        load = parse_load(body) if body is not None else None
        if body is not None and load is None:
            self.problem = self.problem or f"pod {pod.key}: a metric has a malformed value"
        return load

    async def _read(self, pod: Pod) -> bytes | None:
        """Returns the metrics of a pod; None if the response is not usable."""
        address = pod.status.pod_ip or ""
        if _is_loopback(address):
            config = ClusterConfig(server=f"http://{address}:{SERVER_PORT}", credentials=NoCredentials())
            direct = HttpTransport(config)
            try:
                reply = await direct.request("GET", "/metrics")
            finally:
                await direct.close()
        else:
            path = f"/api/v1/namespaces/{pod.namespace}/pods/http:{pod.name}:{SERVER_PORT}/proxy/metrics"
            reply = await self._transport.request("GET", path)
        if reply.status == 403:
            self.problem = self.problem or "your account needs the permission to get pods/proxy"
            return None
        if reply.status != 200 or len(reply.body) > MAX_METRICS_BYTES:
            self.problem = self.problem or f"pod {pod.key}: HTTP {reply.status}"
            return None
        return reply.body


def parse_load(body: bytes) -> Load | None:
    """Returns the load in the metrics of one server; None if a value is malformed.

    Metrics that the server does not export count as 0.
    """
    found = read_sums(body, _READ)
    if found is None:
        return None
    last = found.get(LAST_REQUEST, 0.0)
    return Load(
        running=round(first_of(found, RUNNING) or 0.0),
        waiting=round(first_of(found, WAITING) or 0.0),
        last_request=datetime.fromtimestamp(last, UTC) if 0 < last < 1e11 else None,
    )


def _is_server(pod: Pod) -> bool:
    """Whether the pod answers requests; the workers of a group do not."""
    return bool(pod.labels.get(labels.WORKSPACE)) and pod.labels.get(labels.GROUP_ROLE, labels.LEADER) == labels.LEADER


def _complete(loads: Sequence[Load | None]) -> list[Load] | None:
    known = [load for load in loads if load is not None]
    return known if len(known) == len(loads) else None


def _sum(loads: Sequence[Load]) -> Load:
    times = [load.last_request for load in loads]
    last = max((time for time in times if time is not None), default=None)
    return Load(
        running=sum(load.running for load in loads),
        waiting=sum(load.waiting for load in loads),
        last_request=last if None not in times else None,
    )


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
