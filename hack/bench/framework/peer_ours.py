"""The peer on kaito.runtime; `hack.bench.framework.peers` defines how it is started and what it prints.

| mode    | what it is                                                                                          |
|---------|-----------------------------------------------------------------------------------------------------|
| copy    | a controller that sets `data.done` to `data.want` by a merge patch, ten workers                     |
| sync    | a manager whose cache holds ConfigMaps, and nothing else                                            |
| latency | a controller that measures the time since a change was sent                                         |
| idle    | ten controllers with nothing to do, the lease, probes and metrics, as an operator is deployed       |
| reads   | reads of the cache as fast as one task can, and reads right after a write                           |
"""

import argparse
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from hack.bench.framework.protocol import Latencies, collect_on_signal, emit
from kaito.runtime import Cached, Controller, Manager, Request, Resource, Settings
from kaito.runtime.client import MergePatch
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.manager import Background

WORKERS = 10
READ_NAMESPACE = "default"
OWN_WRITES = 500


class Copier:
    """The controller of the `copy` mode."""

    def __init__(self) -> None:
        self.reconciles = 0

    async def reconcile(self, request: Request[ConfigMap]) -> None:
        """Patches the object unless it is as wanted."""
        self.reconciles += 1
        data = request.object.data
        if data.get("done") != data.get("want"):
            await request.api.patch(request.object, MergePatch({"data": {"done": data.get("want")}}))


async def nothing(request: Request[Any]) -> None:
    """Nothing to do."""


def settings(kubeconfig: Path, **more: Any) -> Settings:
    """No servers and no lease, unless set."""
    plain: dict[str, Any] = {
        "kubeconfig": kubeconfig,
        "metrics_bind_address": "0",
        "health_probe_bind_address": "0",
        "leader_elect": False,
        "log_level": "warning",
    }
    return Settings(**plain | more)


def announcing(manager: Manager, *, elected: bool = True) -> Manager:
    """The manager, saying `synced` when its caches are full (`elected`: and its handlers have seen everything)."""
    started = time.monotonic()

    async def announce() -> None:
        collect_on_signal()
        stats = manager.cache.stats()
        emit("synced", seconds=time.monotonic() - started, objects=sum(kind.objects for kind in stats))

    manager.add(Background("announce", announce, leader_elected=elected, one_shot=True))
    return manager


def copy(options: argparse.Namespace) -> None:
    """Runs until stopped; prints the number of reconciles."""
    copier = Copier()
    manager = Manager(
        settings(options.kubeconfig),
        name="bench",
        controllers=[Controller(ConfigMap, copier.reconcile, workers=WORKERS)],
        cache=[Cached(ConfigMap, labels=options.labels)],
    )
    ending(announcing(manager), lambda: {"reconciles": copier.reconciles})


def sync(options: argparse.Namespace) -> None:
    """Fills the cache, and keeps it."""
    cached = Cached(ConfigMap, labels=options.labels, only="metadata" if options.metadata else None)
    ending(announcing(Manager(settings(options.kubeconfig), name="bench", cache=[cached]), elected=False))


def latency(options: argparse.Namespace) -> None:
    """Keeps the time from the sending of each change to the start of its reconcile."""
    latencies = Latencies()

    async def look(request: Request[ConfigMap]) -> None:
        latencies.record(request.object.name, request.object.data.get("sent"))

    manager = Manager(
        settings(options.kubeconfig),
        name="bench",
        controllers=[Controller(ConfigMap, look, workers=WORKERS)],
        cache=[Cached(ConfigMap, labels=options.labels)],
    )
    ending(announcing(manager), lambda: {"nanoseconds": latencies.nanoseconds})


def idle(options: argparse.Namespace) -> None:
    """Runs with every feature on and no work."""
    from kaito.runtime.kinds import (  # the other modes do not load these kinds, as an operator would not
        DaemonSet,
        Deployment,
        Job,
        PersistentVolumeClaim,
        Pod,
        Secret,
        Service,
        ServiceAccount,
        StatefulSet,
    )

    kinds: list[type[Resource]] = [ConfigMap, Secret, Service, ServiceAccount, Pod, PersistentVolumeClaim]
    kinds += [Deployment, StatefulSet, DaemonSet, Job]
    serving = settings(
        options.kubeconfig,
        metrics_bind_address="127.0.0.1:0",
        health_probe_bind_address="127.0.0.1:0",
        leader_elect=True,
        leader_election_namespace="default",
    )
    controllers = [Controller[Any](kind, nothing, name=kind.kind.lower()) for kind in kinds]
    ending(announcing(Manager(serving, controllers=controllers, lease="bench-ours")))


def reads(options: argparse.Namespace) -> None:
    """Measures reads, prints the result and waits until stopped."""
    cached = Cached(ConfigMap, labels=options.labels)
    manager = Manager(settings(options.kubeconfig), name="bench", cache=[cached])

    async def measure() -> None:
        api = manager.api
        names = [found.name for found in await api.list(ConfigMap)]

        async def get(number: int) -> None:
            await api.get(ConfigMap, names[number * 7919 % len(names)], READ_NAMESPACE)

        async def select(_: int) -> None:
            found = await api.list(ConfigMap, namespace=READ_NAMESPACE, labels={"group": "listed"})
            if len(found) != options.listed:
                raise RuntimeError(f"{len(found)} objects listed, not {options.listed}")

        emit("result", get=await pace(get, options.seconds), list=await pace(select, options.seconds), own=await own())

    async def own() -> dict[str, Any]:
        stale, writing, reading = 0, list[float](), list[float]()
        for number in range(OWN_WRITES):
            target = await manager.api.get(ConfigMap, f"c{number % 50:05d}", READ_NAMESPACE)
            started = time.perf_counter()
            await manager.api.patch(target, MergePatch({"data": {"own": str(started)}}))
            written = time.perf_counter()
            found = await manager.api.get(ConfigMap, target.name, READ_NAMESPACE)
            reading.append(time.perf_counter() - written)
            writing.append(written - started)
            stale += found.data.get("own") != str(started)
        return {"writes": OWN_WRITES, "stale": stale, "write_seconds": writing, "visible_seconds": reading}

    manager.add(Background("measure", measure, one_shot=True))
    ending(announcing(manager, elected=False))


async def pace(work: Callable[[int], Awaitable[None]], seconds: float) -> dict[str, float]:
    """Measures the rate and the CPU time of sequential executions."""
    started, cpu, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - started < seconds:
        await work(count)
        count += 1
    wall = time.perf_counter() - started
    return {"per_second": count / wall, "cpu_us": (time.process_time() - cpu) / count * 1e6}


def ending(manager: Manager, figures: Callable[[], dict[str, Any]] = dict) -> None:
    """Runs until stopped, then prints `end`, unless the manager failed."""
    try:
        manager.run()
    except SystemExit as end:
        if end.code == 0:
            emit("end", **figures())
        raise


MODES = {"copy": copy, "sync": sync, "latency": latency, "idle": idle, "reads": reads}


def main() -> None:
    """Runs one mode."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("kubeconfig", type=Path)
    parser.add_argument("--labels", default="bench=yes")
    parser.add_argument("--metadata", action="store_true")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--listed", type=int, default=1000)
    options = parser.parse_args()
    MODES[options.mode](options)


if __name__ == "__main__":
    main()
