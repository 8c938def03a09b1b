"""Polls ready pods for the state of their adapters, which the server loads and unloads without a restart.

The list of adapters is a ConfigMap that is mounted into the pods; the kubelet replaces the file within about a minute
of a change. Pods have no API token and cannot report anything themselves; their server answers `GET /adapters`. A pod
is polled until it has loaded the present list. The polls run outside reconciles; a changed response adds the Workspace
to the queue.
"""

import asyncio
from collections.abc import Sequence
from typing import Final, Literal, final

from pydantic import BaseModel, Field

from kaito.runtime.cache import View
from kaito.runtime.handler import Enqueue
from kaito.runtime.kinds import Pod
from kaito.runtime.meta import ObjectKey
from kaito.runtime.workqueue import Cause
from kaito.workspace.pod_polls import Fetch, PolledPod, fetch_from_pod, poll_pods

MAX_RESPONSE_BYTES: Final = 64 * 1024
MAX_MESSAGE_CHARACTERS: Final = 500


@final
class LoadedAdapter(BaseModel, frozen=True, extra="ignore"):
    """One adapter in the response of a pod."""

    name: str
    state: Literal["Pulling", "Loading", "Loaded", "Failed", "Unloading"]
    digest: str = ""
    message: str = ""


@final
class AdapterReport(BaseModel, frozen=True, extra="ignore"):
    """The response of a pod."""

    revision: str
    """Revision of the list that the pod has read."""
    problem: str = ""
    """Why the pod cannot read the list."""
    adapters: tuple[LoadedAdapter, ...] = Field(default=(), max_length=100)

    def is_settled(self, revision: str) -> bool:
        """Whether the pod has loaded the list, and freed what is not in it."""
        done = all(adapter.state == "Loaded" for adapter in self.adapters)
        return self.revision == revision and done and not self.problem

    def find(self, name: str) -> LoadedAdapter | None:
        """Returns the state of an adapter; None if the pod does not know it."""
        return next((adapter for adapter in self.adapters if adapter.name == name), None)


def parse_report(body: bytes | None) -> AdapterReport | None:
    """Returns the report in a response; None if it is missing or malformed."""
    if body is None:
        return None
    try:
        return AdapterReport.model_validate_json(body)
    except ValueError:
        return None


@final
class AdapterMonitor:
    """The pods whose adapters change, and what each of them reported.

    Args:
        fetch: reads the report of a pod; `fetch_report` by default.
    """

    def __init__(self, fetch: Fetch | None = None) -> None:
        self._fetch = fetch or fetch_report
        self._watched: dict[ObjectKey, tuple[str, dict[str, str]]] = {}
        self._reports: dict[str, AdapterReport] = {}
        self._added = asyncio.Event()

    def watch(self, workspace: ObjectKey, revision: str, pods: Sequence[Pod]) -> None:
        """Polls the ready pods of the Workspace until they have loaded the list; an empty revision ends the polls."""
        ready = {pod.uid: pod.status.pod_ip for pod in pods if pod.is_ready and not pod.deleting and pod.status.pod_ip}
        _, before = self._watched.get(workspace, ("", {}))
        for uid in before.keys() - (ready.keys() if revision else set()):
            # A container that restarts loads its adapters again, and the pod is not ready meanwhile.
            self._reports.pop(uid, None)
        if not revision or not ready:
            self._watched.pop(workspace, None)
            return
        self._watched[workspace] = (revision, ready)
        if any(self._is_open(uid, revision) for uid in ready):
            self._added.set()

    def find(self, pod: Pod) -> AdapterReport | None:
        """Returns the last report of a pod; None if there is none."""
        return self._reports.get(pod.uid)

    async def run(self, enqueue: Enqueue, _: View) -> None:
        """Polls until canceled; the function of a `FunctionSource`. Waits without polls while every list is loaded."""
        await poll_pods(self._due, lambda pod: self._poll(pod, enqueue), self._added)

    def _due(self) -> list[PolledPod]:
        return [
            PolledPod(key, uid, address)
            for key, (revision, found) in self._watched.items()
            for uid, address in found.items()
            if self._is_open(uid, revision)
        ]

    def _is_open(self, uid: str, revision: str) -> bool:
        report = self._reports.get(uid)
        return report is None or not report.is_settled(revision)

    async def _poll(self, pod: PolledPod, enqueue: Enqueue) -> None:
        found = parse_report(await self._fetch(pod.address))
        if found is None or pod.uid not in self._watched.get(pod.workspace, ("", {}))[1]:
            return
        if found != self._reports.get(pod.uid):
            self._reports[pod.uid] = found
            enqueue.add(pod.workspace, cause=Cause("Pod", pod.uid, "adapters"))


async def fetch_report(address: str) -> bytes | None:
    """Reads `GET /adapters` of the pod with that address; returns None on any failure."""
    return await fetch_from_pod(address, "/adapters", MAX_RESPONSE_BYTES)
