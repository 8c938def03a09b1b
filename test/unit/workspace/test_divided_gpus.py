"""Copies that share a new node, each on a MIG slice of its GPUs (`resource.partition` with an instance type)."""

from dataclasses import replace

import pytest

from kaito.runtime.meta import Quantity
from kaito.workspace.plan import Hardware

SLICES = Hardware(
    copies=7,
    copies_per_node=7,
    instance_type="Standard_NC24ads_A100_v4",
    capacity_types=("spot", "on-demand"),
    gpus=1,
    disk=Quantity("87Gi"),
)


@pytest.mark.parametrize(("copies", "nodes"), [(0, 0), (1, 1), (7, 1), (8, 2), (14, 2), (15, 3)])
def test_a_started_node_is_a_whole_node(copies: int, nodes: int) -> None:
    hardware = replace(SLICES, copies=copies)
    assert (hardware.count, hardware.workers, hardware.gpus_per_node) == (nodes, 0, 7)


def test_on_demand_copies_have_a_whole_on_demand_node() -> None:
    found = [replace(SLICES, copies=21, on_demand_copies=8).capacity_types_of(index) for index in range(3)]
    assert found == [("on-demand",), ("on-demand",), ("spot", "on-demand")]


def test_copies_on_several_nodes_are_counted_as_before() -> None:
    group = replace(SLICES, copies=3, copies_per_node=1, nodes_per_copy=2, on_demand_copies=1)
    assert (group.count, group.workers, group.gpus_per_node) == (6, 3, 1)
    assert [group.capacity_types_of(index) for index in (1, 2)] == [("on-demand",), ("spot", "on-demand")]
