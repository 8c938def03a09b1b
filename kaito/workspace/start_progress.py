"""Polls pods that start for the progress of their model: pulling, loading, warming.

Pods have no API token and cannot report anything themselves. Their server, and the init container that pulls weights,
serve `GET /progress` on the pod's port. The polls run outside reconciles, because a pod may hang; a reconcile names the
pods that are not ready and reads what the last poll returned. A change of the phase, or of the bytes by a twentieth,
adds the Workspace to the queue.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, Literal, final

from pydantic import BaseModel, Field

from kaito.api import conditions
from kaito.runtime.cache import View
from kaito.runtime.handler import Enqueue
from kaito.runtime.kinds import Pod
from kaito.runtime.meta import ObjectKey
from kaito.runtime.workqueue import Cause
from kaito.workspace.pod_polls import Fetch, PolledPod, fetch_from_pod, poll_pods

MAX_RESPONSE_BYTES: Final = 4096
"""The program in the pod may be the user's: a longer response is not read."""

_STEP: Final = 0.05
"""Share of the bytes by which a download must proceed to be reported again."""

_GIGABYTE: Final = 1e9

_PHASES: Final[Mapping[str, tuple[str, str]]] = {
    "pulling": (conditions.PULLING_WEIGHTS, "is pulling the weights"),
    "downloading": (conditions.DOWNLOADING_WEIGHTS, "is downloading the weights from Hugging Face"),
    "loading": (conditions.LOADING_MODEL, "is loading the model"),
    "warming": (conditions.WARMING_UP, "is warming up the model"),
}


@final
class Progress(BaseModel, frozen=True, strict=True):
    """What one pod does before it is ready: the body of its response."""

    phase: Literal["pulling", "downloading", "loading", "warming"]
    bytes: int = Field(default=0, ge=0)
    """Bytes pulled or downloaded so far; 0 if unknown."""
    total: int = Field(default=0, ge=0)
    """Bytes to pull or download; 0 if unknown."""

    @property
    def order(self) -> int:
        """Place of the phase in the order in which a pod passes the phases."""
        return list(_PHASES).index(self.phase)

    @property
    def reason(self) -> str:
        """Reason of the condition."""
        return _PHASES[self.phase][0]

    @property
    def message(self) -> str:
        """What the pod does, as the predicate of a sentence about it."""
        verb = _PHASES[self.phase][1]
        if not self.bytes:
            return verb
        amount = f"{self.bytes / _GIGABYTE:.1f}"
        return f"{verb} ({amount} of {self.total / _GIGABYTE:.1f} GB)" if self.total else f"{verb} ({amount} GB so far)"

    def is_news(self, before: "Progress | None") -> bool:
        """Whether the progress since `before` is large enough to be reported."""
        if before is None or self.phase != before.phase:
            return True
        step = max(self.total * _STEP, _GIGABYTE / 10) if self.total else _GIGABYTE
        return abs(self.bytes - before.bytes) >= step


def parse_progress(body: bytes | None) -> Progress | None:
    """Returns the progress in a response; None if it is missing, malformed, or reports no phase before `ready`."""
    if body is None:
        return None
    try:
        return Progress.model_validate_json(body)
    except ValueError:
        return None


@final
class StartMonitor:
    """The pods that start, and what each of them does.

    Args:
        fetch: reads the progress of a pod; `fetch_progress` by default.
    """

    def __init__(self, fetch: Fetch | None = None) -> None:
        self._fetch = fetch or fetch_progress
        self._watched: dict[ObjectKey, dict[str, str]] = {}
        self._progress: dict[str, Progress] = {}
        self._added = asyncio.Event()

    def watch(self, workspace: ObjectKey, pods: Sequence[Pod]) -> None:
        """Polls exactly these pods of the Workspace from now on: those that run and are not ready."""
        starting = {
            pod.uid: pod.status.pod_ip
            for pod in pods
            if pod.status.pod_ip
            and not pod.deleting
            and not pod.is_ready
            and pod.status.phase in {"Pending", "Running"}
        }
        for uid in self._watched.get(workspace, {}).keys() - starting.keys():
            self._progress.pop(uid, None)
        if starting:
            self._watched[workspace] = starting
            self._added.set()
        else:
            self._watched.pop(workspace, None)

    def find(self, pod: Pod) -> Progress | None:
        """Returns what the pod did at the last poll; None if it is not polled or reports nothing."""
        return self._progress.get(pod.uid)

    async def run(self, enqueue: Enqueue, _: View) -> None:
        """Polls until canceled; the function of a `FunctionSource`. Waits without polls while no pod starts."""
        await poll_pods(self._due, lambda pod: self._poll(pod, enqueue), self._added)

    def _due(self) -> list[PolledPod]:
        return [PolledPod(key, uid, ip) for key, found in self._watched.items() for uid, ip in found.items()]

    async def _poll(self, pod: PolledPod, enqueue: Enqueue) -> None:
        found = parse_progress(await self._fetch(pod.address))
        if found is None or pod.uid not in self._watched.get(pod.workspace, {}):
            return
        if found.is_news(self._progress.get(pod.uid)):
            self._progress[pod.uid] = found
            enqueue.add(pod.workspace, cause=Cause("Pod", pod.uid, found.phase))


async def fetch_progress(address: str) -> bytes | None:
    """Reads `GET /progress` of the pod with that address; returns None on any failure, which is normal at its start."""
    return await fetch_from_pod(address, "/progress", MAX_RESPONSE_BYTES)
