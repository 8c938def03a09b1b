"""The kubelet's loop: starts the pods bound to this machine's nodes and stops those that must end.

Every node of the local cluster is this machine. Pods are started by events; runners are also compared with the cache
twice a second, to stop pods without an event (a pod that was deleted at once, a deleted node).
"""

import contextlib
from functools import partial
from pathlib import Path
from typing import final

from kaito.local.kubelet.environment import Environment
from kaito.local.kubelet.images import Images
from kaito.local.kubelet.pod import PodRunner
from kaito.local.kubelet.status import write_status
from kaito.local.kubelet.volumes import Volumes
from kaito.local.network import PodAddresses
from kaito.runtime.client import Api, Client, MergePatch
from kaito.runtime.clock import Clock
from kaito.runtime.controller import Controller
from kaito.runtime.errors import ApiError, NotFound
from kaito.runtime.kinds import ConfigMap, Node, Pod, Secret
from kaito.runtime.reconcile import Again, Request
from kaito.runtime.tasks import TaskScope

SWEEP_SECONDS = 0.5
REFRESH_SECONDS = 5.0
"""Interval at which ConfigMaps in running pods are read again; up to a minute on a real kubelet."""
FINISHED = {"Succeeded", "Failed"}


@final
class Kubelet:
    """Runs the pods bound to any node of the local cluster."""

    def __init__(
        self,
        folder: Path,
        images: Images,
        client: Client,
        clock: Clock,
        scope: TaskScope,
        addresses: PodAddresses,
    ) -> None:
        self._folder = folder
        self._images = images
        self._client = client
        self._clock = clock
        self._scope = scope
        self._addresses = addresses
        self._volumes = Volumes(folder, self._config_map, self._secret)
        self._runners: dict[str, PodRunner] = {}
        self._ending: set[str] = set()
        self._announced: set[str] = set()
        self.port = 0
        """Port on which this kubelet serves logs; written to the nodes once it is known."""

    def controller(self) -> Controller[Pod]:
        """The controller that starts pods."""
        return Controller(Pod, self._start, name="kubelet", workers=4)

    def log_file(self, namespace: str, pod: str, container: str) -> Path | None:
        """The log of a container, for `kubectl logs`; the pod's only container when none is named."""
        for runner in self._runners.values():
            if (runner.pod.namespace, runner.pod.name) == (namespace, pod):
                return runner.log_of(container or runner.pod.spec.containers[0].name)
        return None

    def kill(self, namespace: str, pod: str) -> int:
        """Kills the processes of a pod's containers; returns their number."""
        runners = [each for each in self._runners.values() if (each.pod.namespace, each.pod.name) == (namespace, pod)]
        return sum(worker.kill() for runner in runners for worker in [*runner.init_workers, *runner.workers])

    async def _start(self, request: Request[Pod]) -> Again | None:
        pod = request.object
        if not pod.spec.node_name or pod.status.phase in FINISHED or pod.uid in self._runners or pod.deleting:
            return None
        runner = PodRunner(
            pod,
            ip=self._addresses.take(pod.uid),
            folder=self._folder / "pods" / f"{pod.namespace}_{pod.name}_{pod.uid[:8]}",
            images=self._images,
            volumes=self._volumes,
            environment=Environment(pod, self._addresses.take(pod.uid), self._config_map, self._secret),
            clock=self._clock,
        )
        self._runners[pod.uid] = runner
        self._scope.spawn(runner.run(partial(write_status, self._client)), name=f"pod.{pod.key}")
        return None

    async def sweep(self, api: Api) -> None:
        """Stops deleted pods and pods of deleted nodes."""
        pods = {pod.uid: pod for pod in await api.list(Pod)}
        nodes = {node.name for node in await self._announce(api)}
        for uid in [uid for uid in self._runners if uid not in pods]:
            self._end(uid, None)
        for uid, pod in pods.items():
            if not pod.spec.node_name:
                continue
            if pod.deleting or pod.spec.node_name not in nodes:
                self._end(uid, pod)

    async def _announce(self, api: Api) -> list[Node]:
        """Writes the kubelet's address to all nodes (for `kubectl logs`, the API server calls this kubelet)."""
        nodes = await api.list(Node)
        for node in nodes:
            if self.port and node.uid not in self._announced:
                endpoint = {"daemonEndpoints": {"kubeletEndpoint": {"Port": self.port}}}
                addresses = {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}
                with contextlib.suppress(NotFound):
                    await self._client.patch(node, MergePatch({"status": endpoint | addresses}), subresource="status")
                self._announced.add(node.uid)
        return nodes

    async def refresh(self) -> None:
        """Updates the files of ConfigMaps in running pods."""
        for runner in list(self._runners.values()):
            await runner.refresh()

    async def stop(self) -> None:
        """Kills the processes of every pod."""
        for runner in self._runners.values():
            for worker in [*runner.init_workers, *runner.workers]:
                await worker.stop(2)

    def _end(self, uid: str, pod: Pod | None) -> None:
        if uid not in self._ending:
            self._ending.add(uid)
            self._scope.spawn(self._end_pod(uid, pod), name=f"end.{uid}")

    async def _end_pod(self, uid: str, pod: Pod | None) -> None:
        runner = self._runners.get(uid)
        if runner is not None:
            await runner.stop()
        if pod is not None:
            with contextlib.suppress(ApiError):  # retried at the next comparison
                await self._client.delete(pod, grace_seconds=0)
        self._runners.pop(uid, None)
        self._ending.discard(uid)
        self._addresses.give_back(uid)

    async def _config_map(self, namespace: str, name: str) -> ConfigMap | None:
        return await self._client.find(ConfigMap, name, namespace)

    async def _secret(self, namespace: str, name: str) -> Secret | None:
        return await self._client.find(Secret, name, namespace)
