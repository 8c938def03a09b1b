"""Measures what grows with the number of Workspaces in the workspace controller, without a server process.

N Workspaces and N nodes are in an in-memory API server; the controller's cache is filled from it in the process.
Reported, in CPU time: the fill of the cache for each object, a read by key and by index, the nodes that match the
selector of one Workspace (existing nodes), the Workspaces that one event of a node queues (existing nodes), and one
scrape of the gauges. A figure for one event or read that grows with N makes the work of N Workspaces quadratic.
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
from kaito.runtime.cache import Cache, View
from kaito.runtime.client import Client
from kaito.runtime.kinds import CustomResourceDefinition, Node
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.tasks import TaskScope
from kaito.runtime.testing import InMemoryTransport
from kaito.workspace import triggers
from kaito.workspace.controller import cached_kinds
from kaito.workspace.indexes import NODES
from kaito.workspace.metrics import WorkspaceCollector
from kaito.workspace.settings import NodeApi, WorkspaceSettings

COLUMNS = (
    Column("fill_us", "fill of the cache, an object", "{:.0f} µs"),
    Column("get_us", "read by key", "{:.0f} µs"),
    Column("index_us", "read by index", "{:.0f} µs"),
    Column("selector_us", "nodes of a selector", "{:,.0f} µs"),
    Column("node_event_us", "event of a node", "{:,.0f} µs"),
    Column("scrape_ms", "scrape of the gauges", "{:,.1f} ms"),
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


async def turn(count: int) -> Figures:
    """Fill a server and a cache with N Workspaces, and measure."""
    server = ApiServer(seed=1)
    client = Client(InMemoryTransport(server), field_manager="bench")
    for definition in crds.manifests():
        await client.create(CustomResourceDefinition.model_validate(without_rules(definition)))
    for index in range(count):
        await client.create(workspace(index))
        await client.create(node(index))
    kinds = [each for each in cached_kinds(WorkspaceSettings(node_api=NodeApi.BYO)) if each.kind in {Workspace, Node}]
    before = cost_of_this_process()
    cache = Cache(InMemoryTransport(server), kinds)
    async with TaskScope("growth") as scope:
        started = time.process_time()
        task = scope.spawn(cache.run(), name="cache")
        await cache.wait_synced(600)
        fill = time.process_time() - started
        rss = cost_of_this_process() - before
        view = View(cache)
        one, its_node = workspace(count // 2), node(count // 2)
        selector = one.resource.label_selector
        collector = WorkspaceCollector(lambda: cache.list(Workspace))
        figures: Figures = {
            "fill_us": 1e6 * fill / (2 * count),
            "get_us": cpu_us(lambda: view.get(Workspace, one.name, "default")),
            "index_us": cpu_us(lambda: view.list(Node, index=NODES(f"default/{one.name}"))),
            "selector_us": cpu_us(lambda: view.list(Node, labels=selector)),
            "node_event_us": cpu_us(lambda: list(triggers.users_of_node(its_node, view)), 5),
            "scrape_ms": cpu_us(lambda: list(collector.collect()), 5) / 1000,
            "rss_kib": 1024 * rss / count,
        }
        task.cancel()
    return figures


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
    """Run each count once."""
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
