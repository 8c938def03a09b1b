"""The local cluster, put together: control plane, cloud, both managers, and what runs pods.

`kaito up` and `kaito demo` enter `LocalCluster`; everything inside it has an owner and ends with it, in reverse order.
The managers and the cloud are separate processes that know each other only through their APIs, as in a real cluster.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from kaito.api import crds
from kaito.api.karpenter import Machine, NodeClaim
from kaito.api.workspace import Workspace
from kaito.local.cloud import CLOUD_ENVIRONMENT, wait_until_listening
from kaito.local.control_plane import ControlPlane, control_plane
from kaito.local.kubelet.agent import SWEEP_SECONDS, Kubelet
from kaito.local.kubelet.images import Images
from kaito.local.kubelet.server import KubeletServer
from kaito.local.network import free_port
from kaito.local.options import Options
from kaito.local.presets import find, tiny_model
from kaito.local.processes import child, ended
from kaito.local.proxy import ServiceProxy
from kaito.local.scheduler import scheduler
from kaito.local.workloads.job import jobs
from kaito.local.workloads.stateful_set import stateful_sets
from kaito.runtime import Again, Api, Cached, Controller, Manager, Settings
from kaito.runtime.clock import SystemClock
from kaito.runtime.kinds import ConfigMap, CustomResourceDefinition, Job, Node, Secret, Service, StatefulSet
from kaito.runtime.tasks import TaskScope


@dataclass(frozen=True, slots=True)
class LocalCluster:
    """A running local cluster."""

    options: Options
    kubeconfig: Path
    logs: Path
    arm_url: str
    manager: Manager
    proxy: ServiceProxy

    @property
    def api(self) -> Api:
        """Reads from the cluster agent's cache, writes as the cluster agent."""
        return self.manager.api


@contextlib.asynccontextmanager
async def local_cluster(options: Options, scope: TaskScope) -> AsyncIterator[LocalCluster]:
    """Run the whole cluster for the length of the body; a part that ends early ends the scope.

    Raises:
        PresetsMissing: there is no serving software to run pods with.
        ChildEnded: a manager or the cloud stopped; the message ends with its log.
    """
    presets = find(options.presets)
    folder = options.folder.resolve()
    logs = folder / "logs"
    for stale in (folder / "pods", logs):
        shutil.rmtree(stale, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    model = await tiny_model(presets, folder)
    async with control_plane(options.control_plane, folder) as plane:
        images = Images(presets, model, base_environment=_pod_environment())
        async with (
            _agent(options, plane, folder, images) as (manager, proxy),
            _cloud(options, plane, logs, scope) as arm_url,
            _managers(options, plane, logs, arm_url, scope),
        ):
            yield LocalCluster(options, plane.kubeconfig, logs, arm_url, manager, proxy)


@contextlib.asynccontextmanager
async def _agent(
    options: Options, plane: ControlPlane, folder: Path, images: Images
) -> AsyncIterator[tuple[Manager, ServiceProxy]]:
    """What kubelet, scheduler, workload controllers and kube-proxy do, in this process."""
    proxy = ServiceProxy()
    settings = Settings(
        kubeconfig=plane.kubeconfig,
        metrics_bind_address="0",
        health_probe_bind_address="0",
        leader_elect=False,
        log_level="warning",
    )
    claim = Machine if options.node_api == "machine" else NodeClaim
    async with TaskScope("pods") as pods:
        manager = Manager(
            settings,
            name="kaito-local",
            cache=[Cached(Workspace), Cached(claim), Cached(Node), Cached(Service), Cached(StatefulSet), Cached(Job)],
            live=[ConfigMap, Secret, CustomResourceDefinition],
        )
        kubelet = Kubelet(folder, images, manager.client, SystemClock(), pods)

        async def sweep(_: object) -> Again | None:
            await kubelet.sweep(manager.api)
            await proxy.sweep(manager.api)
            return None

        for controller in [*kubelet.controllers(), *proxy.controllers(), stateful_sets(), jobs(), scheduler()]:
            manager.add(controller)
        manager.add(Controller.every(SWEEP_SECONDS, sweep, name="sweep"))
        for definition in crds.manifests():
            await manager.client.apply(CustomResourceDefinition.model_validate(definition))
        async with KubeletServer(kubelet, folder) as server:
            kubelet.port = server.port
            if plane.server is not None:
                plane.server.logs = server.read
            async with manager:
                yield manager, proxy
                await kubelet.stop()
        proxy.close()


@contextlib.asynccontextmanager
async def _cloud(options: Options, plane: ControlPlane, logs: Path, scope: TaskScope) -> AsyncIterator[str]:
    """The ARM simulator, whose pools' nodes join the control plane."""
    port = free_port()
    log = logs / "arm-simulator.log"
    command = [sys.executable, "-m", "kaito.cloud.azure.simulator", "--port", str(port)]
    command += ["--kubeconfig", str(plane.kubeconfig), "--speed", str(options.speed)]
    async with child(command, log, env=_manager_environment()) as process:
        scope.spawn(ended("arm-simulator", process, log), name="arm-simulator")
        await wait_until_listening(port, process, log)
        yield f"http://127.0.0.1:{port}"


@contextlib.asynccontextmanager
async def _managers(
    options: Options, plane: ControlPlane, logs: Path, arm_url: str, scope: TaskScope
) -> AsyncIterator[None]:
    """The two binaries, as they run in a cluster."""
    binaries = Path(sys.executable).parent
    common = ["--kubeconfig", plane.kubeconfig, "--metrics-bind-address=0", "--leader-elect=false"]
    commands = {
        "workspace-controller": [*common, f"--node-api={options.node_api}"],
        "gpu-provisioner": [*common, f"--node-api={options.node_api}", f"--arm-endpoint={arm_url}"],
    }
    async with contextlib.AsyncExitStack() as stack:
        for name, arguments in commands.items():
            log = logs / f"{name}.log"
            health = f"--health-probe-bind-address=127.0.0.1:{free_port()}"
            environment = _manager_environment() | CLOUD_ENVIRONMENT
            command = [binaries / name, *arguments, health]
            process = await stack.enter_async_context(child(command, log, env=environment))
            scope.spawn(ended(name, process, log), name=name)
        yield


def _manager_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("KUBE")}


def _pod_environment() -> dict[str, str]:
    """What a process of a pod inherits: no credentials, no offline surprises."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")
    return {name: os.environ[name] for name in kept if name in os.environ} | {
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "2",
    }
