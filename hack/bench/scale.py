"""Measures one workspace controller with up to 10,000 existing Workspaces and 2,000 nodes, without a server process.

One Workspace that serves on a bought node and one that is scaled to zero are reconciled until nothing changes, and
copied in the in-memory API server: a fifth serves, the others have no copies. Then a new controller starts, in virtual
time. Reported, in CPU time of the controller alone (the time in the API server is subtracted): the start until all
Workspaces are reconciled, one changed label, one changed node, one new Workspace until its claim exists, and an hour in
which nothing happens. With --budget, the namespace has a budget, which concerns new claims.
"""

import argparse
import gc
import json
import logging
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, cast
from unittest.mock import patch

import structlog

from hack.bench.driver import give_node, make_ready
from hack.bench.growth import without_rules
from hack.bench.process import cost_of
from hack.bench.report import Column, Figures, Report
from hack.bench.workspaces import workspace
from kaito.api import Workspace, crds, labels
from kaito.api.karpenter import NodeClaim
from kaito.apiserver import ApiServer, Backup, HttpRequest, HttpResponse
from kaito.apiserver.registry.store import Key, Stored
from kaito.prices.book import PriceBook
from kaito.prices.table import parse_table
from kaito.runtime import Controller, Request
from kaito.runtime.client import api
from kaito.runtime.client.applied import digest_of, with_digest
from kaito.runtime.errors import AlreadyExists
from kaito.runtime.kinds import Namespace, Node, Pod, StatefulSet
from kaito.runtime.manager import Manager, Settings
from kaito.runtime.manager.process import GC_THRESHOLDS
from kaito.runtime.predicate import changed
from kaito.runtime.testing import InMemoryTransport, World
from kaito.runtime.testing.virtual import run
from kaito.workspace.digest import digest
from kaito.workspace.main import workspace_manager
from kaito.workspace.manifests import inference
from kaito.workspace.manifests.claim import claim_name
from kaito.workspace.settings import NodeApi, WorkspaceSettings

COLUMNS: Final = (
    Column("start_ms", "start, for each Workspace", "{:.2f} ms"),
    Column("start_s", "start, all", "{:.1f} s"),
    Column("requests", "requests of the start", "{:,.0f}"),
    Column("edit_ms", "a changed label", "{:.1f} ms"),
    Column("node_ms", "a node that is not Ready, and Ready again", "{:.1f} ms"),
    Column("new_ms", "a new Workspace", "{:.1f} ms"),
    Column("hour_s", "an hour of rest", "{:.2f} s"),
    Column("rss_mib", "memory of the start", "{:.0f} MiB"),
    Column("kib", "memory for each Workspace", "{:.1f} KiB"),
)
SERVING_SHARE: Final = 5
"""One of so many Workspaces serves."""
SAMPLE: Final = 20
COPIED: Final = ("workspaces.kaito.sh", "nodeclaims.karpenter.sh", "nodes", "pods", "services", "statefulsets.apps")
LISTS: Final = (
    "/apis/kaito.sh/v1beta1/workspaces",
    "/apis/karpenter.sh/v1/nodeclaims",
    "/api/v1/nodes",
    "/api/v1/pods",
    "/api/v1/services",
    "/apis/apps/v1/statefulsets",
)
DEFINITIONS: Final = "customresourcedefinitions.apiextensions.k8s.io"
PRICES: Final = PriceBook(
    own=parse_table("prices: [{region: eastus, instanceType: Standard_NC6s_v3, onDemand: 3}]", "bench")
)
AT_ZERO: Final = 1
"""Index of the template that is scaled to zero."""


class MeteredServer:
    """The API server, with the CPU time that it uses."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self.cpu_seconds = 0.0
        self.requests = 0

    def serve_upgrades(self, protocols: Any) -> None:
        """Passes the protocols on."""
        self._server.serve_upgrades(protocols)

    async def handle(self, request: HttpRequest) -> HttpResponse:
        """Serves a request."""
        self.requests += 1
        response = cast("HttpResponse", await _Timed(self._server.handle(request), self))
        if not isinstance(response.body, bytes):
            response.body = self._metered(response.body)
        return response

    async def _metered(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        try:
            while True:
                try:
                    yield await _Timed(cast("Any", body).__anext__(), self)
                except StopAsyncIteration:
                    return
        finally:
            await cast("Any", body).aclose()


class _Timed:
    """Awaits work of the server, and adds the CPU time of each of its steps."""

    def __init__(self, work: Any, server: MeteredServer) -> None:
        self._work = work.__await__()
        self._server = server

    def __await__(self) -> Generator[Any, Any, Any]:
        step: Callable[[], Any] = partial(self._work.send, None)
        while True:
            began = time.thread_time()
            try:
                waiting = step()
            except StopIteration as end:
                return end.value
            finally:
                self._server.cpu_seconds += time.thread_time() - began
            try:
                yield waiting
                step = partial(self._work.send, None)
            except BaseException as error:  # noqa: BLE001 - handed on
                step = partial(self._work.throw, error)


async def make_pods(request: Request[StatefulSet]) -> None:
    """Creates the pods of a StatefulSet, or deletes them, and makes it ready."""
    workload = request.object
    for pod in await request.api.list(Pod, namespace=workload.namespace):
        if any(owner.uid == workload.uid for owner in pod.metadata.owner_references) and not workload.spec.replicas:
            await request.api.delete(pod, grace_seconds=0)
    for number in range(workload.spec.replicas or 0):
        template = workload.to_dict()["spec"]["template"]
        document = {
            "metadata": {
                "name": f"{workload.name}-{number}",
                "namespace": workload.namespace,
                "labels": template["metadata"]["labels"],
                "ownerReferences": [workload.owner_reference().to_dict()],
            },
            "spec": template["spec"],
            "status": {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2030-01-01T00:00:00Z"}],
            },
        }
        try:
            await request.api.create(Pod.model_validate(document))
        except AlreadyExists:
            continue
    await make_ready(request)


def controller(world: World, server: Any) -> Manager:
    """Returns the workspace controller."""
    runtime = Settings(metrics_bind_address="0", health_probe_bind_address="0", leader_elect=False, log_level="error")
    settings = WorkspaceSettings(node_api=NodeApi.NODECLAIM, hub_endpoint="", installation_guard=False, region="eastus")
    transport = InMemoryTransport(server)
    return workspace_manager(
        settings, runtime, transport=transport, clock=world.clock, mirrors_count=False, prices=PRICES
    )


class Digested:
    """The digests in annotations of pod templates and manifests, and the JSON that they were computed from."""

    def __init__(self) -> None:
        self.pods: dict[str, str] = {}
        self.applied: dict[str, str] = {}

    def pod(self, template: Any) -> str:
        """Computes the digest of a pod template."""
        found = digest(template)
        self.pods[found] = json.dumps(template)
        return found

    def manifest(self, desired: Any, document: Any, annotation: str, field_manager: str) -> Any:
        """Adds the digest of a manifest, like `with_digest`."""
        found = with_digest(desired, document, annotation, field_manager)
        digested = {"manager": field_manager, "document": document}
        self.applied[found[0].annotations[annotation]] = json.dumps(digested)
        return found

    def rename(self, renamed: dict[str, str]) -> None:
        """Adds the digests of a copy to its names."""
        for known, text in self.pods.items():
            renamed[known] = digest(json.loads(replaced(text, renamed)))
        names = dict(renamed)  # with the digests of templates, which manifests contain
        for known, text in self.applied.items():
            renamed[known] = digest_of(json.loads(replaced(text, names))).hex()


def replaced(text: str, renamed: Mapping[str, str]) -> str:
    """Returns the text with other names."""
    for old, new in renamed.items():
        text = text.replace(old, new)
    return text


async def prepare(world: World, *, budget: bool) -> Digested:
    """Makes one Workspace that serves, and one without copies; returns the digests in their annotations."""
    digested = Digested()

    world.install(*(without_rules(each) for each in crds.manifests()))
    if budget:
        world.patch(Namespace, "default", {"metadata": {"annotations": {labels.HOURLY_BUDGET: "1000000"}}}, "")
    await world.start(
        Controller(StatefulSet, make_pods, name="workloads", when=changed("generation")).owns(Pod),
        Controller(NodeClaim, give_node, name="claims", when=changed("generation")),
    )
    world.put(workspace(0))
    world.put(workspace(AT_ZERO))
    manager = controller(world, world.server)
    world.track(manager)
    async with manager:
        with patch.object(inference, "digest", digested.pod), patch.object(api, "with_digest", digested.manifest):
            await world.advance(120)
            world.patch(Workspace, workspace(AT_ZERO).name, {"spec": {"replicas": 0}})
            await world.advance(30)
        for node in world.list(Node):
            if world.find(NodeClaim, node.name) is None:
                world.delete(Node, node.name)
        await world.advance(1200)
        for each in world.list(Workspace):
            ready = next(found.status for found in each.status.conditions if found.type == "InferenceReady")
            wanted = "False" if each.name == workspace(AT_ZERO).name else "True"
            assert ready == wanted, f"{each.name}: {each.status.conditions}"  # noqa: S101
    return digested


def copies(backup: Backup, count: int, digested: Digested) -> Backup:
    """Returns a backup with N Workspaces: copies of both, with names and UIDs of their own."""
    objects = {storage: dict(found) for storage, found in backup.objects.items()}
    version = backup.rv
    sources = {name: list(_objects_of(backup, name)) for name in (workspace(0).name, workspace(AT_ZERO).name)}
    for index in range(2, count):
        template = workspace(0 if index % SERVING_SHARE == 0 else AT_ZERO)
        renamed = {template.name: workspace(index).name}
        for number, (_, stored) in enumerate(sources[template.name]):
            renamed[stored.uid] = str(uuid.UUID(int=index * 16 + number))
        of_workspace = backup.objects["workspaces.kaito.sh"]["default", template.name].uid
        original, copied = (
            claim_name(template.with_metadata(uid=uid), index=0, serial=0)
            for uid in (of_workspace, renamed[of_workspace])
        )
        renamed[original] = copied
        digested.rename(renamed)
        for storage, stored in sources[template.name]:
            data = json.loads(replaced(json.dumps(stored.data), renamed))
            version += 1
            data["metadata"]["resourceVersion"] = str(version)
            key: Key = (stored.key[0], data["metadata"]["name"])
            objects[storage][key] = Stored(key, version, data)
    return Backup(version, objects)


def _objects_of(backup: Backup, name: str) -> Iterator[tuple[str, Stored]]:
    """Yields the objects of a Workspace."""
    for storage in COPIED:
        for stored in backup.objects.get(storage, {}).values():
            if name in stored.key[1] or stored.metadata.get("labels", {}).get(labels.WORKSPACE) == name:
                yield storage, stored


class Meter:
    """CPU time of this process without that of the server, and requests."""

    def __init__(self, server: MeteredServer) -> None:
        self._server = server
        self.restart()

    def restart(self) -> None:
        """Begins a measurement."""
        self._cpu = time.thread_time() - self._server.cpu_seconds
        self._requests = self._server.requests

    @property
    def seconds(self) -> float:
        """CPU time since the begin."""
        return time.thread_time() - self._server.cpu_seconds - self._cpu

    @property
    def requests(self) -> int:
        """Requests since the begin."""
        return self._server.requests - self._requests


async def measured(meter: Meter, world: World, act: Callable[[int], None]) -> float:
    """Returns the milliseconds of the controller for one of several acts, one after the other."""
    await world.advance(10)
    spent = 0.0
    for number in range(SAMPLE):
        act(number)
        meter.restart()
        await world.advance(2)
        spent += meter.seconds
    return 1000 * spent / SAMPLE


async def turn(count: int, *, budget: bool) -> Figures:
    """Fills a server, starts a controller, and measures."""
    gc.unfreeze()  # what an earlier turn has left
    async with World() as first:
        digested = await prepare(first, budget=budget)
        backup = first.server.backup()
    async with World(seed=2) as world:
        world.install(*(without_rules(each) for each in crds.manifests()))
        definitions = {DEFINITIONS: world.server.backup().objects[DEFINITIONS]}
        world.server.restore(Backup(backup.rv, {**backup.objects, **definitions}))
        world.server.restore(copies(world.server.backup(), count, digested))
        server = MeteredServer(world.server)
        for path in LISTS:  # the server keeps the JSON, which is not memory of the controller
            await InMemoryTransport(world.server).request("GET", path)
        gc.collect()
        gc.freeze()
        before = cost_of(os.getpid())
        meter = Meter(server)
        manager = controller(world, server)
        world.track(manager)
        async with manager:
            gc.collect()  # as `Manager.run` does once the caches are full
            gc.freeze()
            gc.set_threshold(*GC_THRESHOLDS)
            await world.settle()
            await world.advance(30)
            started, requests = meter.seconds, meter.requests
            rss = cost_of(os.getpid()).rss_mib - before.rss_mib
            names = [workspace(index).name for index in range(SERVING_SHARE, count, SERVING_SHARE)][:SAMPLE]
            nodes = sorted(node.name for node in world.list(Node))[:SAMPLE]

            def edit(number: int) -> None:
                world.patch(Workspace, names[number % len(names)], {"metadata": {"labels": {"edit": f"{number}"}}})

            def flap(number: int) -> None:
                for status in ("False", "True"):
                    moment = world.now.isoformat()
                    ready = {"type": "Ready", "status": status, "lastTransitionTime": moment}
                    name = nodes[number % len(nodes)]
                    world.patch(Node, name, {"status": {"conditions": [ready]}}, "", subresource="status")

            def create(number: int) -> None:
                world.put(workspace(100_000 + number).with_metadata(name=f"new-{number}"))

            figures: Figures = {
                "start_ms": 1000 * started / count,
                "start_s": started,
                "requests": requests,
                "edit_ms": await measured(meter, world, edit),
                "node_ms": await measured(meter, world, flap),
                "new_ms": await measured(meter, world, create),
                "rss_mib": rss,
                "kib": 1024 * rss / count,
            }
            for number in range(SAMPLE):
                world.delete(Workspace, f"new-{number}")
            await world.advance(60)
            meter.restart()
            await world.advance(3600)
            return {**figures, "hour_s": meter.seconds}


def benchmark(arguments: Sequence[str]) -> list[Report]:
    """Runs each count once."""
    parser = argparse.ArgumentParser(
        prog="python -m hack.bench scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, nargs="+", default=[1000, 3000, 10000])
    parser.add_argument("--budget", action="store_true", help="give the namespace a budget")
    options = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    rows = {f"{count:,} Workspaces": run(turn(count, budget=options.budget)) for count in options.count}
    return [
        Report(
            name="scale",
            about="one workspace controller by the number of existing Workspaces, a fifth of which serve on a node",
            settings={"counts": options.count, "budget": options.budget},
            columns=COLUMNS,
            rows=rows,
        )
    ]
