"""Reads what the servers of the models do, from the metrics of their pods, through the API server's proxy.

In a local cluster, where pods are processes of this machine, the pods are read directly.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Final, final

from kaito.api import labels
from kaito.runtime.client import ClusterConfig, HttpTransport, NoCredentials, Transport
from kaito.runtime.errors import KaitoRuntimeError
from kaito.runtime.kinds import Pod
from kaito.workspace.manifests.service import SERVER_PORT

TIMEOUT_SECONDS: Final = 4.0
MAX_CONCURRENT_READS: Final = 16
MAX_BYTES: Final = 4 * 2**20

LAST_REQUEST: Final = "kaito_last_request_timestamp_seconds"
RUNNING: Final = ("vllm:num_requests_running", "kaito_generation_in_flight")
WAITING: Final = ("vllm:num_requests_waiting", "kaito_generation_queue_length")
"""Metrics of the runtimes; the first one that a server exports is used."""


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
        texts = await asyncio.gather(*(self._metrics(pod) for pod in serving))
        found: dict[tuple[str, str], list[Load | None]] = {}
        for pod, text in zip(serving, texts, strict=True):
            key = pod.namespace, pod.labels.get(labels.WORKSPACE, "")
            found.setdefault(key, []).append(None if text is None else parse_load(text))
        return {key: _sum(loads) for key, each in found.items() if (loads := _complete(each)) is not None}

    async def _metrics(self, pod: Pod) -> str | None:
        """Returns the metrics of a pod as text; None if they cannot be read."""
        async with self._limit:
            try:
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    return await self._read(pod)
            except (KaitoRuntimeError, TimeoutError) as error:
                self.problem = self.problem or f"pod {pod.key}: {str(error) or 'no answer in time'}"
                return None

    async def _read(self, pod: Pod) -> str | None:
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
        if reply.status != 200 or len(reply.body) > MAX_BYTES:
            self.problem = self.problem or f"pod {pod.key}: HTTP {reply.status}"
            return None
        return reply.body.decode(errors="replace")


def parse_load(text: str) -> Load:
    """Returns the load in the metrics of one server. Metrics that it does not export count as 0."""
    values = _values(text, {*RUNNING, *WAITING, LAST_REQUEST})
    last = values.get(LAST_REQUEST, 0.0)
    return Load(
        running=_first(values, RUNNING),
        waiting=_first(values, WAITING),
        last_request=datetime.fromtimestamp(last, UTC) if 0 < last < 1e11 else None,
    )


def _values(text: str, names: set[str]) -> dict[str, float]:
    """Returns the sums of the samples of some metrics, over all labels."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        name = line.partition("{")[0].partition(" ")[0]
        if name not in names:
            continue
        try:
            value = float(line.rpartition("}")[2].split()[0] if "}" in line else line.split()[1])
        except (ValueError, IndexError):
            continue
        if value == value:
            found[name] = found.get(name, 0.0) + value
    return found


def _first(values: Mapping[str, float], names: Iterable[str]) -> int:
    return round(next((values[name] for name in names if name in values), 0.0))


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
