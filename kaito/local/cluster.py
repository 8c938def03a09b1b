"""Assembles the local cluster: control plane, simulated cloud, both managers, scheduler, workload controllers and
kubelet.

`kaito up` and `kaito demo` enter `LocalCluster`; its components stop with it, in reverse order. The managers and the
cloud are separate processes that communicate only through their APIs, as in a real cluster.
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass
from pathlib import Path

from kaito.api import crds
from kaito.api.karpenter import Machine, NodeClaim
from kaito.api.workspace import Workspace
from kaito.local.admission import LocalWebhook
from kaito.local.cloud import CLOUD_ENVIRONMENT
from kaito.local.control_plane import ControlPlane, control_plane
from kaito.local.kubelet.agent import REFRESH_SECONDS, SWEEP_SECONDS, Kubelet
from kaito.local.kubelet.images import Images
from kaito.local.kubelet.server import KubeletServer
from kaito.local.network import Networks, PodAddresses, free_port, reserve_networks, wait_until_listening
from kaito.local.options import Options
from kaito.local.presets import LocalModel, find, local_model
from kaito.local.processes import child, watched
from kaito.local.proxy import ServiceProxy
from kaito.local.scheduler import scheduler
from kaito.local.time_limit import time_limit
from kaito.local.workloads.job import jobs
from kaito.local.workloads.stateful_set import stateful_sets
from kaito.runtime.cache import Cached
from kaito.runtime.client import Api, Client, connect
from kaito.runtime.clock import SystemClock
from kaito.runtime.controller import Controller
from kaito.runtime.errors import ApiError
from kaito.runtime.kinds import CustomResourceDefinition, Node
from kaito.runtime.manager import Manager, Settings
from kaito.runtime.meta import ObjectKey
from kaito.runtime.reconcile import Again, PeriodicRequest
from kaito.runtime.tasks import TaskScope

DEFINITIONS_SECONDS = 120.0
"""Time limit until the API server serves new kinds; it usually takes a second."""


@dataclass(frozen=True, slots=True)
class LocalCluster:
    """A running local cluster."""

    options: Options
    model: LocalModel
    kubeconfig: Path
    logs: Path
    arm_url: str
    manager: Manager
    proxy: ServiceProxy
    kubelet: Kubelet

    @property
    def api(self) -> Api:
        """Reads from the cluster agent's cache, writes as the cluster agent."""
        return self.manager.api

    def service_url(self, service: ObjectKey) -> str:
        """The URL of port 80 of a Service."""
        return next(e.url for e in self.proxy.endpoints if e.service == service and e.port == 80)


class FolderInUse(RuntimeError):
    """Another local cluster uses the folder."""


@contextlib.contextmanager
def lock_folder(folder: Path) -> Generator[None]:
    """Creates a folder and holds a lock on it while the body runs; the kernel releases it with the process.

    Raises:
        FolderInUse: another process holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"another local cluster uses {folder}: end it, or choose another folder with --folder"
            raise FolderInUse(message) from None
        yield


@contextlib.asynccontextmanager
async def local_cluster(
    options: Options, scope: TaskScope, progress: Callable[[str], None]
) -> AsyncGenerator[LocalCluster]:
    """Runs the whole cluster for the length of the body; a part that ends early ends the scope.

    Args:
        options: options of the cluster.
        scope: owns the tasks that watch the child processes.
        progress: called with a line for each long step.

    Raises:
        PresetsMissing: the serving software for pods is not installed.
        ModelMissing: `--model` names no model.
        ChildEnded: a manager or the cloud stopped; the message ends with its log.
        FolderInUse: another local cluster uses the folder.
        NoFreeNetwork: too many local clusters run on this machine.
    """
    presets = find(options.presets)
    folder = options.folder.resolve()
    with lock_folder(folder), reserve_networks() as networks:
        async with _running(options, presets, folder, networks, scope, progress) as cluster:
            yield cluster


@contextlib.asynccontextmanager
async def _running(
    options: Options,
    presets: Path,
    folder: Path,
    networks: Networks,
    scope: TaskScope,
    progress: Callable[[str], None],
) -> AsyncGenerator[LocalCluster]:
    logs = folder / "logs"
    for stale in (folder / "pods", logs):
        shutil.rmtree(stale, ignore_errors=True)
    model = await local_model(options.model, presets, folder, progress)
    progress(
        "starting the control plane" + (" (built on first use: minutes)" if options.control_plane == "real" else "")
    )
    async with control_plane(options.control_plane, folder, networks.services) as plane:
        progress("starting both managers and the simulated cloud")
        images = Images(presets, model.directory, base_environment=_pod_environment())
        async with (
            _agent(options, plane, folder, images, networks) as (manager, proxy, kubelet),
            _cloud(options, plane, logs, scope) as arm_url,
            _managers(options, plane, logs, arm_url, scope),
        ):
            yield LocalCluster(options, model, plane.kubeconfig, logs, arm_url, manager, proxy, kubelet)


@contextlib.asynccontextmanager
async def _agent(
    options: Options, plane: ControlPlane, folder: Path, images: Images, networks: Networks
) -> AsyncGenerator[tuple[Manager, ServiceProxy, Kubelet]]:
    """Runs kubelet, scheduler, workload controllers and kube-proxy in this process."""
    settings = Settings(
        kubeconfig=plane.kubeconfig,
        metrics_bind_address="0",
        health_probe_bind_address="0",
        leader_elect=False,
        log_level="warning",
    )
    claim = Machine if options.node_api == "machine" else NodeClaim
    async with connect(plane.kubeconfig, field_manager="kaito-local") as client, TaskScope("pods") as pods:
        await _install_definitions(client)
        proxy, addresses = ServiceProxy(networks.services), PodAddresses(networks.pods)
        kubelet = Kubelet(folder, images, client, SystemClock(), pods, addresses)

        async def sweep(tick: PeriodicRequest) -> Again | None:
            await kubelet.sweep(tick.api)
            await proxy.sweep(tick.api)
            return None

        async def refresh(_: PeriodicRequest) -> Again | None:
            await kubelet.refresh()
            return None

        manager = Manager(
            settings,
            name="kaito-local",
            controllers=[
                kubelet.controller(),
                proxy.controller(),
                stateful_sets(),
                jobs(),
                scheduler(client),
                Controller.every(SWEEP_SECONDS, sweep, name="sweep"),
                Controller.every(REFRESH_SECONDS, refresh, name="refresh"),
            ],
            cache=[Cached(Workspace), Cached(claim), Cached(Node)],
        )
        async with KubeletServer(kubelet, folder) as server, manager:
            kubelet.port = server.port
            if plane.server is not None:
                plane.server.serve_logs(server.answer)
            yield manager, proxy, kubelet
            await kubelet.stop()
        proxy.close()


async def _install_definitions(client: Client) -> None:
    """Applies the CRDs and waits until the API server serves them."""
    for definition in crds.manifests():
        await client.apply(CustomResourceDefinition.model_validate(definition))
    async with time_limit(DEFINITIONS_SECONDS, "the API server to serve the CRDs"):
        for kind in (Workspace, Machine, NodeClaim):
            while True:
                try:
                    await client.list(kind)
                except ApiError:
                    await asyncio.sleep(0.2)
                else:
                    break


@contextlib.asynccontextmanager
async def _cloud(options: Options, plane: ControlPlane, logs: Path, scope: TaskScope) -> AsyncGenerator[str]:
    """The ARM simulator, whose pools' nodes join the control plane."""
    port = free_port()
    log = logs / "arm-simulator.log"
    command = [sys.executable, "-m", "kaito.cloud.azure.simulator", "--port", str(port)]
    command += ["--kubeconfig", str(plane.kubeconfig), "--speed", str(options.speed)]
    async with child(command, log, env=_manager_environment()) as process:
        with watched(scope, "arm-simulator", process, log):
            await wait_until_listening(port, "arm-simulator")
            yield f"http://127.0.0.1:{port}"


@contextlib.asynccontextmanager
async def _managers(
    options: Options, plane: ControlPlane, logs: Path, arm_url: str, scope: TaskScope
) -> AsyncGenerator[None]:
    """Starts the two binaries as in a cluster, with the admission of Workspaces."""
    binaries = Path(sys.executable).parent
    common: list[str | Path] = ["--kubeconfig", plane.kubeconfig, "--metrics-bind-address=0", "--leader-elect=false"]
    common += [f"--tracing-endpoint={options.tracing_endpoint}"] if options.tracing_endpoint else []
    webhook = LocalWebhook(logs.parent / "webhook", free_port())
    commands = {
        "workspace-controller": [*common, *webhook.flags(), *controller_flags(options)],
        "gpu-provisioner": [
            *common,
            f"--node-api={options.node_api}",
            f"--arm-endpoint={arm_url}",
            "--azure-credential=fake",
            "--poll-interval=1s",
        ],
    }
    async with contextlib.AsyncExitStack() as stack:
        for name, arguments in commands.items():
            log = logs / f"{name}.log"
            health = f"--health-probe-bind-address=127.0.0.1:{free_port()}"
            environment = _manager_environment() | CLOUD_ENVIRONMENT
            command: list[str | Path] = [binaries / name, *arguments, health]
            process = await stack.enter_async_context(child(command, log, env=environment))
            stack.enter_context(watched(scope, name, process, log))
        await wait_until_listening(webhook.port, "workspace-controller")
        async with connect(plane.kubeconfig, field_manager="kaito-local") as client:
            for configuration in webhook.configurations():
                await client.apply(configuration)
        yield


def controller_flags(options: Options) -> list[str]:
    """The flags of the workspace controller that change what it does about Workspaces."""
    # Pods serve the tiny model of this machine, so that no artifact is pulled unless a Workspace names one.
    region = CLOUD_ENVIRONMENT["LOCATION"]
    return [f"--node-api={options.node_api}", "--weights-source=Download", f"--region={region}"]


def _manager_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("KUBE")}


def _pod_environment() -> dict[str, str]:
    """The environment that processes of pods inherit: without credentials, with model downloads switched off."""
    names = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")
    return {name: os.environ[name] for name in names if name in os.environ} | {
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"),
    }
