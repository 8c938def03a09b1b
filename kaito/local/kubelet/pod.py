"""Runs one pod on this machine: volumes, init containers, containers, and its status.

`PodRunner.run` runs as long as the pod's processes. Every change writes the whole status; writes are serial and only
the newest is pending, so that a slow API server accumulates no writes.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal, final

from kaito.local.kubelet.container import ContainerWorker, RestartPolicy
from kaito.local.kubelet.environment import Environment
from kaito.local.kubelet.images import Images, Launch, Place
from kaito.local.kubelet.volumes import MountError, Volumes, mount_paths
from kaito.runtime.clock import Clock
from kaito.runtime.kinds import Container, ContainerStatus, Pod
from kaito.runtime.meta import format_time
from kaito.runtime.tasks import TaskScope, together

MOUNT_RETRY_SECONDS = 2.0
DEFAULT_GRACE_SECONDS = 30

Publish = Callable[[Pod, dict[str, Any]], Awaitable[None]]
"""Writes a pod's status; the caller retries failures."""

Phase = Literal["Pending", "Running", "Succeeded", "Failed"]


@final
class PodRunner:
    """Runs one pod until its containers are done or it is stopped."""

    def __init__(
        self,
        pod: Pod,
        *,
        ip: str,
        folder: Path,
        images: Images,
        volumes: Volumes,
        environment: Environment,
        clock: Clock,
    ) -> None:
        self.pod = pod
        self.ip = ip
        self.folder = folder
        self._images = images
        self._volumes = volumes
        self._environment = environment
        self._clock = clock
        self._mounted: dict[str, Path] = {}
        self._initialized = not pod.spec.init_containers
        self._problem = ""
        self._started_at = format_time(clock.now())
        self._dirty = asyncio.Event()
        folder.mkdir(parents=True, exist_ok=True)
        self.init_workers = [self._worker(container) for container in pod.spec.init_containers]
        self.workers = [self._worker(container) for container in pod.spec.containers]

    @property
    def policy(self) -> RestartPolicy:
        """The pod's restart policy."""
        match self.pod.spec.restart_policy:
            case "OnFailure" | "Never" as policy:
                return policy
            case _:
                return "Always"

    def log_of(self, container: str) -> Path:
        """The file that collects what a container prints."""
        return self.folder / f"{container}.log"

    async def run(self, publish: Publish) -> None:
        """Mount, initialize, run; returns when every container is done, after the last status was published."""
        async with TaskScope(f"pod.{self.pod.key}") as scope:
            scope.spawn(self._publish_changes(publish), name="status")
            self._dirty.set()
            await self._mount()
            if await self._initialize():
                await together(*(worker.run(self.policy) for worker in self.workers))
        await publish(self.pod, self.status())

    async def refresh(self) -> None:
        """Updates the files of ConfigMaps, if the volumes are mounted."""
        if self._mounted:
            await self._volumes.refresh(self.pod, self.folder)

    async def stop(self) -> None:
        """Ends every container, with the pod's grace period."""
        grace = self.pod.spec.termination_grace_period_seconds
        seconds = float(DEFAULT_GRACE_SECONDS if grace is None else grace)
        await together(*(worker.stop(seconds) for worker in [*self.init_workers, *self.workers]))

    def status(self) -> dict[str, Any]:
        """The whole status, ready to be merged into the pod's."""
        statuses = [worker.status() for worker in self.workers]
        ready = bool(statuses) and all(worker.is_ready for worker in self.workers)
        phase = self._phase(statuses)
        now = format_time(self._clock.now())
        done = {"reason": "PodCompleted"} if phase == "Succeeded" else {}
        waiting = {} if ready else done or {"reason": "ContainersNotReady", "message": self._problem or "not ready"}
        conditions = [
            {"type": "PodScheduled", "status": "True"},
            {"type": "Initialized", "status": str(self._initialized)},
            {"type": "ContainersReady", "status": str(ready), **waiting},
            {"type": "Ready", "status": str(ready), **waiting},
        ]
        previous = {condition.type: condition for condition in self.pod.status.conditions}
        for condition in conditions:
            old = previous.get(condition["type"])
            unchanged_since = old.last_transition_time if old and old.status == condition["status"] else None
            condition["lastTransitionTime"] = format_time(unchanged_since) if unchanged_since else now
        return {
            "phase": phase,
            "conditions": conditions,
            "containerStatuses": [status.to_dict() for status in statuses],
            "initContainerStatuses": [worker.status().to_dict() for worker in self.init_workers],
            "podIP": self.ip,
            "podIPs": [{"ip": self.ip}],
            "hostIP": "127.0.0.1",
            "startTime": self._started_at,
        }

    def _phase(self, statuses: list[ContainerStatus]) -> Phase:
        codes = [worker.exit_code for worker in self.init_workers]
        if any(code not in {None, 0} for code in codes) and self.policy == "Never":
            return "Failed"
        if not self._initialized or all(status.state.waiting and not status.restart_count for status in statuses):
            return "Pending"
        ends = [status.state.terminated for status in statuses]
        if all(end is not None for end in ends) and self.policy != "Always":
            failed = any(end is not None and end.exit_code != 0 for end in ends)
            return "Succeeded" if not failed else "Failed" if self.policy == "Never" else "Running"
        return "Running"

    async def _mount(self) -> None:
        """Sets up the volumes, retrying while objects they need are missing."""
        while True:
            try:
                self._mounted = await self._volumes.prepare(self.pod, self.folder)
            except MountError as problem:
                self._problem = f"MountVolume.SetUp failed: {problem}"
                self._dirty.set()
                await asyncio.sleep(MOUNT_RETRY_SECONDS)
            else:
                self._problem = ""
                return

    async def _initialize(self) -> bool:
        """Runs the init containers in order; False when one failed permanently."""
        for worker in self.init_workers:
            code = await worker.run("Never" if self.policy == "Never" else "OnFailure")
            if code != 0:
                self._problem = f"init container {worker.container.name} failed with exit code {code}"
                return False
        self._initialized = True
        self._dirty.set()
        return True

    async def _publish_changes(self, publish: Publish) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            await publish(self.pod, self.status())

    def _worker(self, container: Container) -> ContainerWorker:
        async def launch(command: list[str] | None) -> Launch:
            place = Place(self.ip, self.folder, mount_paths(container, self._mounted))
            env = await self._environment.resolve(container)
            wanted = container if command is None else container.evolve(command=command, args=[])
            return self._images.launch(wanted, place, env)

        return ContainerWorker(
            container,
            ip=self.ip,
            log=self.log_of(container.name),
            clock=self._clock,
            launch=launch,
            changed=self._dirty.set,
        )
