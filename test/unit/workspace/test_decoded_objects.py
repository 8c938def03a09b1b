"""A reconcile decodes the same number of objects however many Workspaces there are beside its own."""

from collections import Counter
from typing import Any

import pytest

from kaito.api import Workspace, labels
from kaito.prices.book import PriceBook
from kaito.prices.table import parse_table
from kaito.runtime.cache import cache as reads
from kaito.runtime.cache.entry import decode
from kaito.runtime.client import Client
from kaito.runtime.kinds import EndpointSlice, Namespace
from kaito.runtime.manager import Manager, Settings
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.testing import World
from kaito.workspace.main import workspace_manager
from kaito.workspace.settings import NodeApi, WorkspaceSettings
from test.unit.workspace.conftest import Cluster

BOOK = PriceBook(own=parse_table("prices: [{region: eastus, instanceType: Standard_NC6s_v3, onDemand: 3}]", "own"))


class Decoded:
    """Counts the objects that readers of the cache decode, by class."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.counts: Counter[str] = Counter()
        monkeypatch.setattr(reads, "decode", self)

    def __call__(self, entry: Any, kind: Any, *, metadata_only: bool = False) -> Any:
        self.counts[kind.__name__] += 1
        return decode(entry, kind, metadata_only=metadata_only)

    def take(self) -> dict[str, int]:
        """The counts since the last call."""
        taken, self.counts = dict(self.counts), Counter()
        return taken


def with_budget(world: World) -> tuple[Cluster, Manager]:
    """A cluster whose namespace has a budget, and its workspace controller."""
    cluster = Cluster(world, WorkspaceSettings(node_api=NodeApi.MACHINE, region="eastus"))
    world.put(Namespace(metadata=ObjectMeta(name="default", annotations={labels.HOURLY_BUDGET: "1000"})))
    cluster.namespace("kaito-system")
    settings = Settings(metrics_bind_address="0", health_probe_bind_address="0", leader_elect=False)
    manager = workspace_manager(cluster.settings, settings, transport=world.transport(), clock=world.clock, prices=BOOK)
    world.track(manager)
    return cluster, manager


async def test_a_reconcile_decodes_no_other_workspace(
    world: World, phi: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, manager = with_budget(world)
    decoded = Decoded(monkeypatch)

    async def measure(first: int, last: int) -> dict[str, int]:
        """Adds Workspaces, and returns what is decoded after one of them was changed."""
        for index in range(first, last):
            document = phi.to_dict() | {"spec": {"autoscaling": {"minReplicas": 0}}}
            document["metadata"] = {"name": f"w{index}", "namespace": "default"}
            cluster.apply(Workspace.model_validate(document))
        await world.settle()
        for claim in cluster.claims():
            cluster.join(claim)
        await world.advance(60)
        assert len(world.list(EndpointSlice)) == last
        decoded.take()
        world.patch(Workspace, "w0", {"metadata": {"annotations": {"changed": str(last)}}})
        await world.settle()
        return decoded.take()

    async with manager:
        few, many = await measure(0, 3), await measure(3, 9)
    assert few == many
    assert few["WorkspaceMetadata"] == 1


async def test_a_new_workspace_reads_no_other_one_to_compare_with_the_budget(
    world: World, phi: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, manager = with_budget(world)
    decoded, lists = Decoded(monkeypatch), 0
    original = Client.list

    async def counted(self: Client, *args: Any, **options: Any) -> Any:
        nonlocal lists
        lists += 1
        return await original(self, *args, **options)

    monkeypatch.setattr(Client, "list", counted)

    async def measure(first: int, last: int) -> tuple[dict[str, int], int]:
        """Adds Workspaces, and returns what is decoded, and how many lists are requested, for the last of them."""
        nonlocal lists
        for index in range(first, last):
            await world.advance(60)
            decoded.take()
            lists = 0
            document = phi.to_dict()
            document["metadata"] = {"name": f"w{index}", "namespace": "default"}
            cluster.apply(Workspace.model_validate(document))
        await world.settle()
        assert len(cluster.claims()) == last
        return decoded.take(), lists

    async with manager:
        few, many = await measure(0, 3), await measure(3, 9)
    assert few == many
    assert few[1] == 0
