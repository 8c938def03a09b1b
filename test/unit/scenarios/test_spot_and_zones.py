"""Spot nodes and zones, from the field of the Workspace to the agent pool, the node and its pods."""

from typing import TYPE_CHECKING

import pytest

from kaito.api import labels
from kaito.cloud.azure.simulator import named
from kaito.runtime.kinds import Node, StatefulSet

if TYPE_CHECKING:
    from test.unit.scenarios.conftest import System

A10, A10_2 = "Standard_NV36ads_A10_v5", "Standard_NV72ads_A10_v5"
PRESET = "phi-3-mini-4k-instruct"
SPOT_TAINT = "kubernetes.azure.com/scalesetpriority"


async def test_a_spot_node_in_a_zone(system: "System") -> None:
    await system.start()
    system.apply(preset=PRESET, instanceType=A10, capacityType="spot", zones=["2"])
    await system.until("ready", system.is_ready)
    (pool,) = system.simulator.cluster.pools.values()
    properties = pool.properties
    assert properties["scaleSetPriority"] == "Spot"
    assert properties["scaleSetEvictionPolicy"] == "Delete"
    assert properties["spotMaxPrice"] == -1.0
    assert properties["availabilityZones"] == ["2"]
    (node,) = system.world.list(Node)
    assert node.labels[labels.ZONE] == "eastus-2"
    assert node.labels[labels.CAPACITY_TYPE] == "spot"
    assert [taint.value for taint in node.spec.taints if taint.key == SPOT_TAINT] == ["spot"]
    (workload,) = system.world.list(StatefulSet)
    tolerated = workload.to_dict()["spec"]["template"]["spec"]["tolerations"]
    assert SPOT_TAINT in {toleration["key"] for toleration in tolerated}


@pytest.mark.slow("test_a_spot_node_in_a_zone")
async def test_every_zone_is_tried_before_the_next_alternative(system: "System") -> None:
    """Two zones without capacity are two requests for one claim, and the record contains both."""
    system.simulator.faults.add(named("zonal-capacity", times=2))
    await system.start()
    system.apply(preset=PRESET, instanceTypes=[A10, A10_2], zones=["1", "3"])
    await system.until("ready", system.is_ready)
    assert list(system.pools.values()) == [A10_2]
    assert len(system.puts) == 3
    record = system.workspace().annotations[labels.ALTERNATIVES]
    assert f"{A10.lower()}/1/on-demand" in record
    assert f"{A10.lower()}/3/on-demand" in record


async def test_zones_are_for_new_nodes_only(system: "System") -> None:
    await system.start()
    system.apply(preset=PRESET, instanceType=A10, zones=["1"])
    await system.until("ready", system.is_ready)
    system.world.patch(type(system.workspace()), "w", {"resource": {"zones": ["2"], "capacityType": "spot"}})
    await system.world.advance(600)
    assert len(system.puts) == 1
    system.world.patch(type(system.workspace()), "w", {"spec": {"replicas": 2}})
    await system.until("ready", lambda: len(system.pools) == 2 and system.is_ready())
    zones = {str(pool.properties["availabilityZones"]) for pool in system.simulator.cluster.pools.values()}
    assert zones == {"['1']", "['2']"}
