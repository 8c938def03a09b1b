"""Simulates Azure for a cluster whose real node belongs to an agent pool.

`python -m hack.cluster.agent_pools` serves the ARM API of `kaito.cloud.azure.simulator` on the cluster's network, where
gpu-provisioner calls it. When a pool is Succeeded, kubelet joins with the name, labels, taints and provider ID of the
pool's first instance; when the pool is deleted, kubelet stops and the Node object is deleted, as the cloud node manager
does it. The machine has one such node: an instance that is created while another one exists never joins.
"""

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hack.cluster.cluster import Cluster
from hack.cluster.gpus import Gpus, advertise
from hack.cluster.layout import ADDRESS
from hack.cluster.node import NodeOptions
from kaito.cloud.azure.simulator import Simulator, SimulatorSettings, node_object
from kaito.cloud.azure.simulator.pools import Pool, PoolEvent
from kaito.cloud.azure.simulator.server import ADMIN, serve

PORT = 7443
URL = f"http://{ADDRESS}:{PORT}"
"""Value of gpu-provisioner's `--arm-endpoint`."""
STATE = f"{URL}{ADMIN}/state"
PROCESS = "arm-simulator"
SPEED = 60.0
_START_SECONDS = 60.0
_KUBELET_LABELS = ("kubernetes.io/hostname", "kubernetes.io/arch", "kubernetes.io/os")
"""Labels that kubelet sets itself."""

_log = logging.getLogger(__name__)


class Instance(Protocol):
    """The real node of a cluster."""

    def join(self, options: NodeOptions, gpus: int) -> None:
        """Starts the node; returns when it is Ready and has its GPUs."""
        ...

    def leave(self, name: str) -> None:
        """Stops the node and deletes its Node object."""
        ...


class ClusterInstance:
    """The first node of `Cluster`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def join(self, options: NodeOptions, gpus: int) -> None:
        self._cluster.join(options)
        advertise(self._cluster, options.name, Gpus(count=gpus))
        self._cluster.kubectl("label", "node", options.name, "--overwrite", "accelerator=nvidia")

    def leave(self, name: str) -> None:
        self._cluster.leave()
        self._cluster.kubectl("delete", "node", name, "--ignore-not-found", "--wait=false")


@dataclass
class PoolNode:
    """Lets the real node follow the agent pools: `Cluster.add_listener` of the simulator calls `on_event`."""

    instance: Instance
    settings: SimulatorSettings

    def __post_init__(self) -> None:
        self._events: asyncio.Queue[tuple[PoolEvent, Pool]] = asyncio.Queue()
        self._joined: Pool | None = None

    def on_event(self, event: PoolEvent, pool: Pool) -> None:
        """Takes note of an event of a pool."""
        self._events.put_nowait((event, pool))

    async def run(self) -> None:
        """Acts on the events in their order, one at a time, until cancelled."""
        while True:
            event, pool = await self._events.get()
            try:
                await self._act(event, pool)
            except RuntimeError:
                _log.exception("pool %s: %s failed", pool.name, event)
            finally:
                self._events.task_done()

    async def idle(self) -> None:
        """Waits until all events are handled."""
        await self._events.join()

    async def _act(self, event: PoolEvent, pool: Pool) -> None:
        if event == "provisioned" and self._joined is None:
            self._joined = pool
            options = node_options(pool, self.settings)
            _log.info("pool %s: %s joins", pool.name, options.name)
            await asyncio.to_thread(self.instance.join, options, pool.size.gpus)
        elif event == "provisioned" and self._joined is not pool:
            _log.warning("pool %s: no machine is left for its node", pool.name)
        elif event == "deleted" and self._joined is pool:
            _log.info("pool %s: its node leaves", pool.name)
            await asyncio.to_thread(self.instance.leave, node_object.node_name(pool, 0))
            self._joined = None


def node_options(pool: Pool, settings: SimulatorSettings) -> NodeOptions:
    """Returns the identity with which AKS starts kubelet on the first instance of a pool."""
    name = node_object.node_name(pool, 0)
    labels: Mapping[str, str] = node_object.registered(name, pool, settings).labels
    taints: Sequence[str] = pool.properties.get("nodeTaints") or ()
    return NodeOptions(
        name=name,
        labels={key: value for key, value in labels.items() if key not in _KUBELET_LABELS},
        taints=tuple(taints),
        provider_id=node_object.provider_id(pool, 0, settings),
    )


def start(cluster: Cluster, speed: float = SPEED) -> None:
    """Starts the simulator as a process of the cluster; the first node must have left.

    Raises:
        StartFailed: it ended or does not answer.
    """
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", __name__, "--name", cluster.layout.name, "--speed", str(speed)]
    cluster.processes.start(PROCESS, command, environment={"PYTHONPATH": str(root)})

    def answers() -> bool:
        return cluster.run("curl", "-sf", "--max-time", "5", f"{URL}{ADMIN}/healthz", check=False).returncode == 0

    cluster.processes.wait(PROCESS, answers, _START_SECONDS)


def stop(cluster: Cluster) -> None:
    """Stops the simulator; its node stays."""
    cluster.processes.stop(PROCESS)


async def run(cluster: Cluster, speed: float) -> None:
    """Serves until SIGINT or SIGTERM."""
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    settings = SimulatorSettings(speed=speed)
    follower = PoolNode(ClusterInstance(cluster), settings)
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        simulator = await stack.enter_async_context(Simulator(settings))
        simulator.cluster.add_listener(follower.on_event)
        _log.info("ARM on %s", await stack.enter_async_context(serve(simulator, host=ADDRESS, port=PORT)))
        following = tasks.create_task(follower.run())
        await stopped.wait()
        following.cancel()


def main() -> None:
    """Parses the arguments and serves."""
    parser = argparse.ArgumentParser(prog="python -m hack.cluster.agent_pools", description=__doc__)
    parser.add_argument("--name", required=True, help="name of the cluster")
    parser.add_argument(
        "--speed", type=float, default=SPEED, help="simulated seconds per second (default: %(default)s)"
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    asyncio.run(run(Cluster(options.name), options.speed))


if __name__ == "__main__":
    main()
