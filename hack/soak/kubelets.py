"""Stand-ins of the kubelets: run the pods that the scheduler has bound to the nodes of the simulated cloud.

The rest of Kubernetes is real: StatefulSets, Jobs, garbage collection and eviction are kube-controller-manager's.
"""

import asyncio
import random
from datetime import UTC, datetime
from typing import Any, Final, final

from hack.soak.live import LiveServer
from kaito.runtime.client import Client, MergePatch
from kaito.runtime.errors import KaitoRuntimeError
from kaito.runtime.kinds import Pod
from kaito.simulation.cluster import has_crashed, is_of_job, is_ready, phase_of
from kaito.simulation.manifests import Object, entries, has_condition, is_terminating, labels_of

INTERVAL_SECONDS: Final = 1.0
START_SECONDS: Final = (2.0, 20.0)
"""Range of the time from the binding of a pod until it is ready."""

JOB_SECONDS: Final = 60.0
"""Time from the start of a Job's pod to its end."""


@final
class Kubelets:
    """The kubelets of all nodes.

    Args:
        server: the state of the API server.
        client: writes the status of pods.
        rng: start times of pods.
    """

    def __init__(self, server: LiveServer, client: Client, rng: random.Random) -> None:
        self._server, self._client, self._rng = server, client, rng
        self._ready_at: dict[str, float] = {}
        self._ends_at: dict[str, float] = {}
        self.broken: dict[str, float] = {}
        """Until when the pods of a Workspace (`namespace/name`) crash, in the time of the event loop."""

    def reconcile(self) -> None:
        """Does nothing: the loop of `work` notices what has changed."""

    async def work(self) -> None:
        """Runs until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            for pod in list(self._server.stored("pods").values()):
                try:
                    await self._sync(pod)
                except (KaitoRuntimeError, TimeoutError):
                    continue  # repeated at the next interval

    async def _sync(self, pod: Object) -> None:
        node = self._server.stored("nodes").get(("", pod["spec"].get("nodeName") or ""))
        if node is None or not has_condition(node, "Ready"):
            return
        if is_terminating(pod):
            await self._client.delete(Pod.model_validate(pod), grace_seconds=0)
            return
        if phase_of(pod) in {"Failed", "Succeeded"}:
            return
        now, uid = asyncio.get_running_loop().time(), str(pod["metadata"]["uid"])
        starts = self._ready_at.setdefault(uid, now + self._rng.uniform(*START_SECONDS))
        name = f"{pod['metadata']['namespace']}/{labels_of(pod).get('kaito.sh/workspace', '')}"
        if now < (until := self.broken.get(name, 0.0)):
            self._ready_at[uid] = until + START_SECONDS[0]
            if not has_crashed(pod):
                await self._report(pod, "False", {"waiting": CRASHING}, {"terminated": CRASHED})
        elif now >= starts and not is_ready(pod):
            self._ends_at[uid] = now + JOB_SECONDS
            await self._report(pod, "True", {"running": {"startedAt": _timestamp()}})
        elif is_ready(pod) and is_of_job(pod) and now >= self._ends_at.setdefault(uid, now + JOB_SECONDS):
            ended = {"exitCode": 0, "reason": "Completed", "startedAt": _timestamp(), "finishedAt": _timestamp()}
            await self._report(pod, "False", {"terminated": ended}, phase="Succeeded")

    async def _report(
        self, pod: Object, ready: str, state: Object, last: Object | None = None, phase: str = "Running"
    ) -> None:
        condition = {"type": "Ready", "status": ready, "lastTransitionTime": _timestamp()}
        others = [dict(each) for each in entries(pod, "status", "conditions") if each["type"] != "Ready"]
        containers: list[dict[str, Any]] = [
            {
                "name": each["name"],
                "image": each.get("image", ""),
                "imageID": "",
                "ready": ready == "True",
                "restartCount": 0 if last is None else 3,
                "state": state,
                "lastState": last or {},
            }
            for each in pod["spec"]["containers"]
        ]
        status = {"phase": phase, "conditions": [*others, condition], "containerStatuses": containers}
        await self._client.patch(Pod.model_validate(pod), MergePatch({"status": status}), subresource="status")


CRASHING: Final = {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container"}
CRASHED: Final = {"exitCode": 1, "reason": "Error", "message": "CUDA error: an illegal memory access"}


def _timestamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
