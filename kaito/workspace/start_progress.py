"""Polls pods that start for the progress of their model: pulling, loading, warming, and the figures of the start.

Pods have no API token and cannot report anything themselves. Their server, and the init container that pulls weights,
serve `GET /progress` on the pod's port. The polls run outside reconciles, because a pod may hang; a reconcile names the
pods that are not ready and reads what the last poll returned. A change of the phase, or of the bytes by a twentieth,
adds the Workspace to the queue. A pod that is ready is polled until it has reported its figures once.
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
from kaito.workspace.start_figures import StartFigures, parse_figures

MAX_RESPONSE_BYTES: Final = 4096
"""The program in the pod may be the user's: a longer response is not read."""

_STEP: Final = 0.05
"""Share of the bytes by which a download must proceed to be reported again."""

MAX_FIGURE_POLLS: Final = 5
"""Polls of a ready pod for its figures. Servers of other versions and of private images report none."""

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
        self._figures: dict[str, StartFigures] = {}
        self._pods: dict[ObjectKey, frozenset[str]] = {}
        self._left: dict[str, int] = {}
        """Polls that remain for the figures of ready pods."""
        self._added = asyncio.Event()

    def watch(self, workspace: ObjectKey, pods: Sequence[Pod]) -> None:
        """Polls these pods of the Workspace from now on, and no others: those that are not ready or have no figures."""
        self._forget(workspace, frozenset(pod.uid for pod in pods))
        watched: dict[str, str] = {}
        for pod in pods:
            if pod.deleting or not pod.status.pod_ip or pod.status.phase not in {"Pending", "Running"}:
                continue
            if pod.is_ready:
                if pod.uid in self._figures or not self._left.setdefault(pod.uid, MAX_FIGURE_POLLS):
                    continue
            else:
                self._left.pop(pod.uid, None)  # its server starts again
            watched[pod.uid] = pod.status.pod_ip
        for uid in self._watched.get(workspace, {}).keys() - watched.keys():
            self._progress.pop(uid, None)
        if watched:
            self._watched[workspace] = watched
            self._added.set()
        else:
            self._watched.pop(workspace, None)

    def _forget(self, workspace: ObjectKey, present: frozenset[str]) -> None:
        for uid in self._pods.pop(workspace, frozenset()) - present:
            self._figures.pop(uid, None)
            self._left.pop(uid, None)
        if present:
            self._pods[workspace] = present

    def figures(self, pods: Sequence[Pod]) -> list[StartFigures]:
        """Returns the figures of the ready pods that have reported some."""
        return [self._figures[pod.uid] for pod in pods if pod.is_ready and pod.uid in self._figures]

    def find(self, pod: Pod) -> Progress | None:
        """Returns what the pod did at the last poll; None if it is not polled or reports nothing."""
        return self._progress.get(pod.uid)

    async def run(self, enqueue: Enqueue, _: View) -> None:
        """Polls until canceled; the function of a `FunctionSource`. Waits without polls while no pod starts."""
        await poll_pods(self._due, lambda pod: self._poll(pod, enqueue), self._added)

    def _due(self) -> list[PolledPod]:
        return [PolledPod(key, uid, ip) for key, found in self._watched.items() for uid, ip in found.items()]

    async def _poll(self, pod: PolledPod, enqueue: Enqueue) -> None:
        body = await self._fetch(pod.address)
        if pod.uid not in self._watched.get(pod.workspace, {}):
            return
        found = parse_progress(body)
        if found is None:
            self._note_figures(pod, parse_figures(body), enqueue)
            return
        if found.is_news(self._progress.get(pod.uid)):
            self._progress[pod.uid] = found
            enqueue.add(pod.workspace, cause=Cause("Pod", pod.uid, found.phase))

    def _note_figures(self, pod: PolledPod, figures: StartFigures | None, enqueue: Enqueue) -> None:
        """Keeps the figures of a pod. A pod that is not ready yet has another event later."""
        is_ready = pod.uid in self._left
        if figures is not None:
            self._figures[pod.uid] = figures
        elif is_ready:
            self._left[pod.uid] -= 1
        if is_ready and (figures is not None or not self._left[pod.uid]):
            self._watched[pod.workspace].pop(pod.uid)
            if not self._watched[pod.workspace]:
                del self._watched[pod.workspace]
        if is_ready and figures is not None:
            enqueue.add(pod.workspace, cause=Cause("Pod", pod.uid, "figures"))


async def fetch_progress(address: str) -> bytes | None:
    """Reads `GET /progress` of the pod with that address; returns None on any failure, which is normal at its start."""
    return await fetch_from_pod(address, "/progress", MAX_RESPONSE_BYTES)
