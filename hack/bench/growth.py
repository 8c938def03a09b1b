"""Measures what grows with the number of Workspaces in the workspace controller, without a server process.

N Workspaces and N nodes are in an in-memory API server; the controller's cache is filled from it in the process.
Reported, in CPU time: the fill of the cache for each object, a read by key and by index, the nodes that match the
selector of one Workspace (existing nodes), the Workspaces that one event of a node queues (existing nodes), and the
gauges of Workspaces: the first collection, which decodes all of them, one after 1 % of them have changed, and the text
of a scrape. A figure for one event or read that grows with N makes the work of N Workspaces quadratic.
"""

import argparse
import asyncio
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from hack.bench.process import cost_of
from hack.bench.report import Column, Figures, Report
from hack.bench.workspaces import workspace
from kaito.api import Workspace, crds, labels
from kaito.apiserver import ApiServer
from kaito.runtime.cache import Cache, Derived, View
from kaito.runtime.client import Client, MergePatch
from kaito.runtime.kinds import CustomResourceDefinition, Node
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.metrics import Metrics
from kaito.runtime.tasks import TaskScope
from kaito.runtime.testing import InMemoryTransport
from kaito.workspace import triggers
from kaito.workspace.controller import cached_kinds
from kaito.workspace.figures import WorkspaceFigures
from kaito.workspace.indexes import NODES
from kaito.workspace.metrics import WorkspaceMetrics
from kaito.workspace.settings import NodeApi, WorkspaceSettings

COLUMNS = (
    Column("fill_us", "fill of the cache, an object", "{:.0f} µs"),
    Column("get_us", "read by key", "{:.0f} µs"),
    Column("index_us", "read by index", "{:.0f} µs"),
    Column("selector_us", "nodes of a selector", "{:,.0f} µs"),
    Column("node_event_us", "event of a node", "{:,.0f} µs"),
    Column("first_ms", "first collection of the gauges", "{:,.1f} ms"),
    Column("collect_ms", "after 1 % changed", "{:,.1f} ms"),
    Column("scrape_ms", "text of a scrape", "{:,.1f} ms"),
    Column("rss_kib", "RSS of a Workspace and its node", "{:.1f} KiB"),
)
REPEATS = 50


def node(index: int) -> Node:
    """The node of a Workspace."""
    name = f"phi-{index:04d}"
    marks = {"apps": name, labels.WORKSPACE: name, labels.WORKSPACE_NAMESPACE: "default"}
    return Node(metadata=ObjectMeta(name=name, labels=marks))


def without_rules(schema: Any) -> Any:
    """A schema without CEL rules, which take the in-memory server most of the time of a create request."""
    if isinstance(schema, Mapping):
        fields = cast("Mapping[str, Any]", schema)
        return {name: without_rules(value) for name, value in fields.items() if name != "x-kubernetes-validations"}
    return [without_rules(each) for each in cast("Iterable[Any]", schema)] if isinstance(schema, list) else schema


def status(index: int) -> dict[str, Any]:
    """The status of a Workspace that serves, with what it costs."""
    cost = {
        "currency": "USD",
        "perHour": "3.673",
        "total": "11.2",
        "nodeHours": "3.05",
        "updatedAt": "2030-01-01T03:00:00Z",
        "nodes": [{"name": f"ws{index:08x}", "since": "2030-01-01T00:00:00Z", "perHour": "3.673"}],
        "ended": {"total": "0", "nodeHours": "0", "unpricedNodeHours": "0"},
    }
    return {"state": "Ready", "replicas": 1, "readyReplicas": 1, "targetNodeCount": 1, "cost": cost}


async def fill(client: Client, count: int) -> None:
    """Creates N Workspaces and nodes."""
    for definition in crds.manifests():
        await client.create(CustomResourceDefinition.model_validate(without_rules(definition)))
    for index in range(count):
        created = await client.create(workspace(index))
        await client.patch(created, MergePatch({"status": status(index)}), subresource="status")
        await client.create(node(index))


async def turn(count: int) -> Figures:
    """Fills a server and a cache with N Workspaces, and measure."""
    server = ApiServer(seed=1)
    client = Client(InMemoryTransport(server), field_manager="bench")
    await fill(client, count)
    kinds = [each for each in cached_kinds(WorkspaceSettings(node_api=NodeApi.BYO)) if each.kind in {Workspace, Node}]
    before = cost_of_this_process()
    cache = Cache(InMemoryTransport(server), kinds)
    async with TaskScope("growth") as scope:
        started = time.process_time()
        task = scope.spawn(cache.run(), name="cache")
        await cache.wait_synced(600)
        filled = time.process_time() - started
        rss = cost_of_this_process() - before
        view = View(cache)
        one, its_node = workspace(count // 2), node(count // 2)
        selector = one.resource.label_selector
        figures: Figures = {
            "fill_us": 1e6 * filled / (2 * count),
            "get_us": cpu_us(lambda: view.get(Workspace, one.name, "default")),
            "index_us": cpu_us(lambda: view.list(Node, index=NODES(f"default/{one.name}"))),
            "selector_us": cpu_us(lambda: view.list(Node, labels=selector)),
            "node_event_us": cpu_us(lambda: list(triggers.users_of_node(its_node, view)), 5),
            "rss_kib": 1024 * rss / count,
            **await scrapes(client, cache, count),
        }
        task.cancel()
    return figures


async def scrapes(client: Client, cache: Cache, count: int) -> Figures:
    """Measures the gauges of Workspaces."""
    values = Derived(Workspace, WorkspaceFigures.of)
    metrics = Metrics()
    WorkspaceMetrics().register(metrics.registry, lambda: values.values(cache))

    def collect() -> None:
        for family in metrics.registry.collect():
            del family

    first = cpu_us(collect, 1)
    for index in range(0, count, 100):
        await client.patch(workspace(index), MergePatch({"status": {"state": "NotReady"}}), subresource="status")
    await asyncio.sleep(0.5)  # until the cache has received the changes
    changed = cpu_us(collect, 1)
    return {
        "first_ms": first / 1000,
        "collect_ms": changed / 1000,
        "scrape_ms": cpu_us(metrics.exposition, 5) / 1000,
    }


def cost_of_this_process() -> float:
    """Resident memory in MiB."""
    return cost_of(os.getpid()).rss_mib


def cpu_us(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """CPU time of one call in microseconds."""
    started = time.process_time()
    for _ in range(repeats):
        work()
    return 1e6 * (time.process_time() - started) / repeats


def benchmark(arguments: Sequence[str]) -> list[Report]:
    """Runs each count once."""
    parser = argparse.ArgumentParser(
        prog="python -m hack.bench growth", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, nargs="+", default=[1000, 5000, 10000])
    options = parser.parse_args(arguments)
    rows = {f"{count:,} Workspaces": asyncio.run(turn(count)) for count in options.count}
    return [
        Report(
            name="growth",
            about="parts of the workspace controller's work by the number of Workspaces and nodes",
            settings={"counts": options.count},
            columns=COLUMNS,
            rows=rows,
        )
    ]
