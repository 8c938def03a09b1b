"""Polls the pods of tuning jobs for their progress: steps, loss, and the end of the push.

The pods serve `GET /progress`. Inside the cluster, and in `kaito up`, they are read directly, otherwise through the API
server's proxy.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, final
from urllib.parse import quote

from kaito.api.json_values import json_object
from kaito.chat.endpoint import is_loopback
from kaito.console.views.json_values import Json, time_text
from kaito.runtime.cache import Cache, Header
from kaito.runtime.client import Transport
from kaito.runtime.clock import Clock
from kaito.runtime.errors import KaitoRuntimeError
from kaito.runtime.kinds import Pod
from kaito.runtime.meta import ObjectKey
from kaito.workspace.manifests.service import SERVER_PORT
from kaito.workspace.ownership import pod_owner_key
from kaito.workspace.pod_polls import fetch_from_pod

POLL_SECONDS: Final = 3.0
MAX_POINTS: Final = 1000
"""Values of a loss curve; a longer one is thinned out."""

MAX_BYTES: Final = 65_536
MAX_CONCURRENT_POLLS: Final = 16

_PUSH: Final[Mapping[str, str]] = {"pushing": "running", "completed": "done", "failed": "failed"}


@final
@dataclass(slots=True)
class Run:
    """What one pod reported."""

    uid: str
    report: Mapping[str, Any] = field(default_factory=dict[str, Any])
    loss: list[tuple[int, float]] = field(default_factory=list[tuple[int, float]])

    def add(self, report: Mapping[str, Any]) -> None:
        """Adds a report."""
        self.report = report
        step, loss = report.get("step"), report.get("loss")
        if not isinstance(step, int) or isinstance(loss, bool) or not isinstance(loss, int | float):
            return
        if not self.loss or step > self.loss[-1][0]:
            self.loss.append((step, float(loss)))
        if len(self.loss) > MAX_POINTS:
            self.loss = self.loss[::2]


@final
class TuningMonitor:
    """The progress of tuning jobs.

    Args:
        cache: the informers.
        transport: the network to the API server, with the rights of the console.
        clock: the current time, for the estimated end.
        changed: called with the Workspace whose progress changed.
        is_in_cluster: whether addresses of pods can be reached.
    """

    def __init__(
        self,
        cache: Cache,
        transport: Transport,
        clock: Clock,
        changed: Callable[[ObjectKey], None],
        *,
        is_in_cluster: bool,
    ) -> None:
        self._cache = cache
        self._transport = transport
        self._clock = clock
        self._changed = changed
        self._is_in_cluster = is_in_cluster
        self._runs: dict[ObjectKey, Run] = {}
        self._limit = asyncio.Semaphore(MAX_CONCURRENT_POLLS)

    def progress(self, key: ObjectKey) -> Json | None:
        """Returns what the job of a Workspace reported last; None if nothing is known."""
        run = self._runs.get(key)
        return _progress(run, self._clock) if run is not None and run.report else None

    async def run(self) -> None:
        """Polls until canceled."""
        while True:
            await self.poll()
            await asyncio.sleep(POLL_SECONDS)

    async def poll(self) -> None:
        """Polls every job once."""
        if not self._cache.informer(Pod).synced:
            return
        pods = {key: pod for pod in self._pods_of_jobs() if (key := pod_owner_key(pod)) is not None}
        for gone in self._runs.keys() - pods.keys():
            del self._runs[gone]
        running = {key: pod for key, pod in pods.items() if pod.status.phase == "Running" and pod.status.pod_ip}
        await asyncio.gather(*(self._poll(key, pod) for key, pod in running.items()))

    def _pods_of_jobs(self) -> Iterator[Pod]:
        """Yields the pods of Jobs; those of StatefulSets are not decoded."""
        for shard in self._cache.informer(Pod).shards(""):
            keys = [entry.header.key for entry in shard.store if _is_of_job(entry.header)]
            yield from (pod for key in keys if (pod := self._cache.get(Pod, key)) is not None)

    async def _poll(self, key: ObjectKey, pod: Pod) -> None:
        async with self._limit:
            body = await self._read(pod)
        if body is None:
            return
        try:
            report = json_object(json.loads(body))
        except (ValueError, RecursionError):
            return
        run = self._runs.get(key)
        if run is None or run.uid != pod.uid:
            run = self._runs[key] = Run(pod.uid)
        if report != run.report:
            run.add(report)
            self._changed(key)

    async def _read(self, pod: Pod) -> bytes | None:
        address = pod.status.pod_ip or ""
        if self._is_in_cluster or is_loopback(address):
            return await fetch_from_pod(address, "/progress", MAX_BYTES)
        name = quote(f"http:{pod.name}:{SERVER_PORT}")
        path = f"/api/v1/namespaces/{pod.namespace}/pods/{name}/proxy/progress"
        try:
            reply = await self._transport.request("GET", path, timeout=5.0)
        except KaitoRuntimeError:
            return None
        return reply.body if reply.status == 200 and len(reply.body) <= MAX_BYTES else None


def _is_of_job(header: Header) -> bool:
    return any(owner.kind == "Job" for owner in header.owners)


def _progress(run: Run, clock: Clock) -> Json:
    report = run.report
    step, total, left = report.get("step"), report.get("total_steps"), report.get("eta_seconds")
    share = step / total if isinstance(step, int) and isinstance(total, int) and total > 0 else None
    eta = clock.now() + timedelta(seconds=float(left)) if isinstance(left, int | float) and left > 0 else None
    phase = str(report.get("phase") or "")
    return {
        "phase": phase,
        "step": step,
        "totalSteps": total or None,
        "progress": round(share, 4) if share is not None else None,
        "loss": run.loss,
        "evalLoss": report.get("eval_loss"),
        "eta": time_text(eta.replace(microsecond=0)) if eta is not None else None,
        "push": _PUSH.get(phase, "waiting"),
        "message": str(report.get("message") or ""),
    }
