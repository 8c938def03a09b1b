"""Nodes of simulated pools in the cluster."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from kaito.cloud.azure.simulator import Knobs, Simulator, SimulatorSettings
from kaito.cloud.azure.simulator.__main__ import parse_settings, parser
from kaito.cloud.azure.simulator.http import ArmError
from kaito.cloud.azure.simulator.knobs import KnobOverrides
from kaito.runtime import Client
from kaito.runtime.kinds import Lease, Node
from kaito.runtime.testing import World

SETTINGS = SimulatorSettings(provision_seconds=300, delete_seconds=120)
POOL = {"vmSize": "Standard_NC24ads_A100_v4", "nodeLabels": {"own": "label"}, "nodeTaints": ["sku=gpu:NoSchedule"]}


@pytest.fixture
async def simulator(world: World) -> AsyncIterator[Simulator]:
    nodes = Client(world.transport(agent="machines/1"), field_manager="machines")
    async with Simulator(SETTINGS, nodes=nodes, clock=world.clock) as simulator:
        yield simulator


def only(world: World) -> Node:
    (node,) = world.list(Node)
    return node


def gpus(node: Node) -> int:
    found = node.status.allocatable.get("nvidia.com/gpu")
    return int(found) if found else 0


async def test_node_joins_in_steps(world: World, simulator: Simulator) -> None:
    simulator.cluster.put("ws1", {"properties": POOL})
    await world.advance(190)
    assert world.list(Node) == []
    await world.advance(5.5)
    born = only(world)
    assert (born.spec.provider_id or "", born.is_ready, gpus(born)) == ("", False, 0)
    assert simulator.cluster.pools["ws1"].state == "Creating", "the node joins before the operation ends"
    assert {taint.key for taint in born.spec.taints} >= {"sku", "node.cloudprovider.kubernetes.io/uninitialized"}
    await world.advance(2)
    assert (only(world).spec.provider_id or "").endswith("-vmss/virtualMachines/0")
    await world.advance(10)
    ready = only(world)
    assert (ready.is_ready, gpus(ready)) == (True, 0)
    assert [taint.key for taint in ready.spec.taints] == ["sku"]
    await world.advance(35)
    assert gpus(only(world)) == 1
    assert only(world).labels.items() >= {"own": "label", "agentpool": "ws1", "accelerator": "nvidia"}.items()
    lease = world.get(Lease, only(world).name, "kube-node-lease")
    assert lease.spec.renew_time is not None


async def test_nodes_are_deleted_with_their_pool(world: World, simulator: Simulator) -> None:
    simulator.cluster.put("ws1", {"properties": POOL})
    await world.advance(310)
    simulator.cluster.delete("ws1")
    await world.advance(60)
    ready = only(world).condition("Ready")
    assert ready is not None
    assert (ready.status, ready.reason) == ("Unknown", "NodeStatusUnknown")
    await world.advance(70)
    assert world.list(Node) == []


async def test_nodes_that_outlive_their_pool_are_deleted_when_that_ends(world: World, simulator: Simulator) -> None:
    simulator.cluster.put("ws1", {"properties": POOL})
    await world.advance(310)
    simulator.knobs.set(node_outlives_pool=True)
    simulator.cluster.delete("ws1")
    await world.advance(600)
    assert only(world).labels["agentpool"] == "ws1"
    simulator.knobs.clear()
    await world.advance(61)
    assert world.list(Node) == []


@pytest.mark.parametrize(
    ("knobs", "nodes", "ready"),
    [
        ({"never_join": True}, 0, 0),
        ({"join_twice": True}, 2, 2),
        ({"not_ready": True}, 1, 0),
        ({"join_delay": 500}, 0, 0),
        ({"ready_delay": 500}, 1, 0),
        ({"heartbeat_stop": True}, 1, 0),
    ],
)
async def test_knobs_determine_nodes_and_readiness(
    world: World, simulator: Simulator, knobs: dict[str, Any], nodes: int, ready: int
) -> None:
    simulator.knobs.set("ws.*", **knobs)
    simulator.cluster.put("ws1", {"properties": POOL})
    await world.advance(400)
    found = world.list(Node)
    assert (len(found), sum(node.is_ready for node in found)) == (nodes, ready)


async def test_failed_requests_only_delay_the_nodes(world: World, simulator: Simulator) -> None:
    world.fail_next("POST", Node, status=500, times=3)
    world.fail_next("PUT", Node, status=409, times=2)
    simulator.cluster.put("ws1", {"properties": POOL})
    await world.advance(400)
    assert only(world).is_ready
    assert gpus(only(world)) == 1


async def test_a_node_that_a_node_controller_has_marked_reports_again(world: World, simulator: Simulator) -> None:
    """A node that the API server could not hear for long is Unknown until its kubelet reports again."""
    simulator.cluster.put("ws1", {"properties": POOL})
    await world.advance(400)
    unknown = [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]
    world.patch(Node, only(world).name, {"status": {"conditions": unknown}}, subresource="status")
    assert not only(world).is_ready
    await world.advance(11)
    assert only(world).is_ready
    assert gpus(only(world)) == 1


async def test_failed_pool_has_no_nodes(world: World, simulator: Simulator) -> None:
    simulator.cluster.capacity["standard_nc24ads_a100_v4"] = 0
    simulator.cluster.put("ws1", {"properties": POOL})
    await world.advance(600)
    assert simulator.cluster.pools["ws1"].state == "Failed"
    assert world.list(Node) == []


def test_last_matching_override_applies() -> None:
    board = KnobOverrides(Knobs(gpu_delay=5))
    board.set(gpu_delay=6)
    board.set("ws2", never_join=True)
    assert (board.of("ws1").gpu_delay, board.of("ws1").never_join) == (6, False)
    assert (board.of("ws2").gpu_delay, board.of("ws2").never_join) == (6, True)
    board.clear()
    assert board.of("ws2") == Knobs(gpu_delay=5)
    with pytest.raises(ValueError, match="no_such_knob"):
        board.set(no_such_knob=1)


def test_an_override_ends_alone() -> None:
    overrides = KnobOverrides()
    end = overrides.set("ws1", never_join=True)
    overrides.set("ws1", gpu_delay=5.0)
    end()
    end()
    assert overrides.of("ws1") == Knobs(gpu_delay=5.0)


def test_flags_set_the_settings() -> None:
    settings = parse_settings(parser().parse_args(["--speed", "60", "--provision-seconds", "30", "--cluster", "mine"]))
    assert (settings.speed, settings.provision_seconds, settings.cluster) == (60, 30, "mine")
    assert settings.seconds(300) == 5
    assert settings.retry_after == {}, "as recorded: none"
    settings = parse_settings(parser().parse_args(["--speed", "60", "--retry-after-seconds", "10"]))
    assert settings.retry_after == {"Retry-After": "1"}


@pytest.mark.parametrize(("strategy", "resource"), [("single", "nvidia.com/gpu"), ("mixed", "nvidia.com/mig-2g.20gb")])
async def test_a_divided_node_advertises_the_slices_of_all_its_gpus(world: World, strategy: str, resource: str) -> None:
    nodes = Client(world.transport(agent="machines/1"), field_manager="machines")
    settings = parse_settings(parser().parse_args(["--provision-seconds=300", f"--mig-strategy={strategy}"]))
    async with Simulator(settings, nodes=nodes, clock=world.clock) as simulator:
        divided = POOL | {"vmSize": "Standard_NC48ads_A100_v4", "gpuInstanceProfile": "MIG2g"}
        simulator.cluster.put("ws1", {"properties": divided})
        await world.advance(310)
        found = only(world).status.allocatable
        assert {name: int(amount) for name, amount in found.items() if "nvidia" in name} == {resource: 6}


@pytest.mark.parametrize(("size", "profile"), [("Standard_NC6s_v3", "MIG1g"), ("Standard_NC24ads_A100_v4", "MIG5g")])
async def test_gpus_that_cannot_be_divided_are_refused(simulator: Simulator, size: str, profile: str) -> None:
    with pytest.raises(ArmError, match=f"GPU instance profile '{profile}' is not supported for VM size {size}"):
        simulator.cluster.put("ws1", {"properties": POOL | {"vmSize": size, "gpuInstanceProfile": profile}})
    assert simulator.cluster.pools == {}


async def test_a_machine_that_vanishes_has_no_notice(world: World, simulator: Simulator) -> None:
    simulator.cluster.put("ws1", {"properties": POOL})
    await world.advance(400)
    assert only(world).is_ready
    simulator.knobs.set(vanishes=True)
    await world.advance(60)
    ready = only(world).condition("Ready")
    assert ready is not None
    assert ready.status == "Unknown"
    assert only(world).condition("VMEventScheduled") is None
    await world.advance(120)
    assert world.list(Node) == []
    assert simulator.cluster.pools["ws1"].state == "Succeeded"
