"""Alternatives in `resource.instanceTypes`: the cloud is out of some of them, and both controllers act on it."""

import json
from typing import TYPE_CHECKING

import pytest

from kaito.api import labels
from kaito.cloud.azure.simulator import named
from kaito.runtime.kinds import Event, Node, StatefulSet
from kaito.runtime.testing import CrashPoint
from kaito.workspace.alternatives import AlternativesRecord

if TYPE_CHECKING:
    from test.unit.scenarios.conftest import System

A100, A100_2, H100 = "Standard_NC24ads_A100_v4", "Standard_NC48ads_A100_v4", "Standard_NC40ads_H100_v5"
T4 = "Standard_NC4as_T4_v3"
THREE = [A100, H100, A100_2]
PRESET = "qwen2.5-coder-32b-instruct"
HOUR = 3600.0

pytestmark = pytest.mark.timeout(240)
"""Hours of virtual time are many reconciles."""


def record(system: "System") -> AlternativesRecord:
    return AlternativesRecord.from_annotations(system.workspace().annotations)


def claims_condition(system: "System") -> tuple[str, str, str]:
    return system.condition("MachineReady" if system.kind.kind == "Machine" else "NodeClaimReady")


def command(system: "System") -> str:
    (workload,) = system.world.list(StatefulSet)
    return str(workload.to_dict()["spec"]["template"]["spec"]["containers"])


async def test_two_of_three_are_out_of_stock(system: "System") -> None:
    """The third one is used with its own parallelism, and the cloud received exactly three requests."""
    system.out_of_stock(A100, H100)
    await system.start()
    system.apply(preset=PRESET, instanceTypes=THREE)
    assert await system.until("ready", system.is_ready) < HOUR
    assert len(system.puts) == 3
    assert list(system.pools.values()) == [A100_2]
    assert system.workspace().status.instance_type == A100_2
    assert "--tensor-parallel-size=2" in command(system)
    message = system.condition("ModelResolved")[2]
    assert f"on 1 node of {A100_2}; passed: {A100}: InsufficientCapacity: AllocationFailed" in message
    refused = [each for each in system.world.list(Event) if each.reason == "InstanceTypeRefused"]
    assert [each.note.split(" ", 1)[0] for each in refused] == [A100, H100]


async def test_the_first_one_is_used_if_the_cloud_has_it(system: "System") -> None:
    """It is not changed later, although the record has no reason for it."""
    await system.start()
    system.apply(preset=PRESET, instanceTypes=THREE)
    await system.until("ready", system.is_ready)
    await system.world.advance(2 * HOUR)
    assert list(system.pools.values()) == [A100]
    assert len(system.puts) == 1
    assert record(system) == AlternativesRecord(chosen=A100)


async def test_an_alternative_that_cannot_run_the_model_is_skipped(system: "System") -> None:
    system.out_of_stock(A100)
    await system.start()
    system.apply(preset=PRESET, instanceTypes=[T4, A100, H100])
    await system.until("ready", system.is_ready)
    assert list(system.pools.values()) == [H100]
    assert len(system.puts) == 2
    assert f"{T4} (1 x NVIDIA T4" in system.condition("ModelResolved")[2]


async def test_the_only_usable_alternative_keeps_its_claim(system: "System") -> None:
    """There is no other one to move to, so the provisioner retries it."""
    system.out_of_stock(A100)
    await system.start()
    system.apply(preset=PRESET, instanceTypes=[T4, A100])
    await system.world.settle()
    (claim,) = system.claims()
    await system.until("refused", lambda: claims_condition(system)[1] == "InsufficientCapacity")
    await system.world.advance(60)
    assert [each.name for each in system.claims()] == [claim.name]
    assert record(system).stock_outs == {}


@pytest.mark.slow("test_two_of_three_are_out_of_stock")
async def test_all_are_out_of_stock_until_the_first_one_returns(system: "System") -> None:
    """Nothing is requested during the pauses, whose end the condition contains; then the order begins again."""
    system.out_of_stock(*THREE)
    await system.start()
    system.apply(preset=PRESET, instanceTypes=THREE)
    exhausted = "AlternativesExhausted"
    await system.until("exhausted", lambda: claims_condition(system)[1] == exhausted, within=2 * HOUR, step=60)
    status, _, message = claims_condition(system)
    assert status == "False"
    assert all(f"{name}: InsufficientCapacity" in message for name in THREE)
    assert "; the next claim is created at 2030-01-01T" in message
    assert [claim for claim in system.claims() if not claim.deleting] == []  # one waits for the deletion of its pool
    requests = len(system.puts)
    assert requests <= 9
    await system.world.advance(3 * HOUR)
    # The longest pause is 60 minutes.
    assert requests + 3 * 2 <= len(system.puts) <= requests + 3 * 4
    system.in_stock(H100)
    await system.until("ready", system.is_ready, within=2 * HOUR, step=60)
    assert list(system.pools.values()) == [H100]


@pytest.mark.sample(1)
@pytest.mark.parametrize("level", ["family", "regional", "compute", "pool"])
async def test_quota_at_each_level(system: "System", level: str) -> None:
    """The quota of a family, and that of the region, whatever the cloud's form of the refusal."""
    cluster = system.simulator.cluster
    if level in {"compute", "pool"}:
        cluster.settings = cluster.settings.model_copy(update={"quota_refusal": level})
    if level == "regional":
        cluster.quota["cores"] = 30
    else:
        family = next(size.family for size in cluster.catalog.sizes.values() if size.name == H100)
        cluster.quota[family.lower()] = 0
    await system.start()
    system.apply(preset=PRESET, instanceTypes=[H100, A100])
    await system.until("ready", system.is_ready)
    assert list(system.pools.values()) == [A100]
    assert record(system).stock_outs[f"{H100.lower()}//on-demand"].reason == "QuotaExceeded"


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "fault", ["sku", "size-not-supported", "overconstrained-zonal", "sku-not-available", "policy", "subnet-full"]
)
async def test_a_restricted_instance_type_is_left(system: "System", fault: str) -> None:
    system.simulator.faults.add(named(fault, times=1))
    await system.start()
    system.apply(preset=PRESET, instanceTypes=THREE)
    await system.until("ready", system.is_ready)
    assert list(system.pools.values()) == [H100]


@pytest.mark.slow("test_a_restricted_instance_type_is_left")
async def test_a_creation_that_never_ends_is_left(system: "System") -> None:
    """The claim is given up after 15 minutes, and the next instance type is used."""
    system.simulator.faults.add(named("never-ends", times=1))
    await system.start()
    system.apply(preset=PRESET, instanceTypes=THREE)
    await system.until("ready", system.is_ready, step=20)
    assert H100 in system.pools.values()
    assert record(system).stock_outs[f"{A100.lower()}//on-demand"].reason == "LaunchTimeout"


@pytest.mark.slow("test_a_crash_at_any_write_buys_nothing_twice")
@pytest.mark.parametrize("process", ["controller", "provisioner"])
async def test_a_restart_in_the_middle(system: "System", process: str) -> None:
    """The record is on the Workspace: no offering is requested twice."""
    system.out_of_stock(A100, H100)
    await system.start()
    system.apply(preset=PRESET, instanceTypes=THREE)
    for seconds in (299, 3, 300, 8):
        await system.world.advance(seconds)
        if process == "controller":
            await system.stop_controller()
            await system.world.advance(20)
            await system.start_controller()
        else:
            await system.stop_provisioner()
            await system.world.advance(20)
            await system.start_provisioner()
    await system.until("ready", system.is_ready)
    assert len(system.puts) == 3
    assert list(system.pools.values()) == [A100_2]


@pytest.mark.sample(1)
@pytest.mark.parametrize("writes", range(3, 12))
async def test_a_crash_at_any_write_buys_nothing_twice(system: "System", writes: int) -> None:
    """The server performs the write, the process ends before it has the answer."""
    system.out_of_stock(A100)
    await system.start_provisioner()
    crash = CrashPoint(writes)
    await system.start_controller(crash)
    system.apply(preset=PRESET, instanceTypes=THREE)
    for _ in range(130):
        if crash.has_crashed():
            break
        await system.world.advance(5)
    await system.stop_controller()
    await system.start_controller()
    await system.until("ready", system.is_ready)
    assert list(system.pools.values()) == [H100]
    assert len(system.puts) == 2


@pytest.mark.slow("test_two_of_three_are_out_of_stock")
async def test_a_copy_on_several_nodes_never_mixes_instance_types(system: "System") -> None:
    """One of its two nodes is bought, for the other one there is no capacity: both are given back."""
    system.out_of_stock(A100, left=1)
    await system.start()
    system.apply(preset="llama-3.3-70b-instruct", instanceTypes=[A100, A100_2])
    seen: set[frozenset[str]] = set()

    def is_ready() -> bool:
        launched = [claim.instance_type for claim in system.claims() if claim.status.provider_id and not claim.deleting]
        seen.add(frozenset(launched))
        return system.is_ready()

    await system.until("ready", is_ready)
    assert frozenset({A100, A100_2}) not in seen
    assert set(system.pools.values()) == {A100_2}


@pytest.mark.slow("test_the_first_one_is_used_if_the_cloud_has_it")
async def test_a_running_workspace_stays_until_it_is_told(system: "System") -> None:
    """Copies that serve stay although the first alternative is back; the annotation moves them."""
    system.out_of_stock(A100)
    await system.start()
    system.apply(preset=PRESET, instanceTypes=THREE)
    await system.until("ready", system.is_ready)
    system.in_stock(A100)
    await system.world.advance(3 * HOUR)
    assert list(system.pools.values()) == [H100]
    patch = {"metadata": {"annotations": {labels.REPLAN: "now"}}}
    system.world.patch(type(system.workspace()), "w", patch)
    await system.world.settle()
    assert labels.REPLAN not in system.workspace().annotations
    await system.until("moved", lambda: system.is_ready() and set(system.pools.values()) == {A100})
    assert len(system.puts) == 3


@pytest.mark.slow("test_two_of_three_are_out_of_stock")
async def test_a_second_copy_without_capacity_does_not_move_the_first(system: "System") -> None:
    system.out_of_stock(A100, left=1)
    await system.start()
    system.apply(preset=PRESET, instanceTypes=[A100, H100], count=2)
    await system.world.advance(2 * HOUR)
    assert A100 in system.pools.values()
    assert H100 not in system.pools.values()
    assert {claim.instance_type for claim in system.claims()} == {A100}


@pytest.mark.slow("test_two_of_three_are_out_of_stock")
async def test_a_lost_node_may_move_the_workspace(system: "System") -> None:
    """All its nodes are lost, and the cloud has no more of them."""
    await system.start()
    system.apply(preset=PRESET, instanceTypes=THREE)
    await system.until("ready", system.is_ready)
    (claim,) = system.claims()
    system.world.delete(system.kind, claim.name)
    await system.until("its pool is deleted", lambda: claim.name not in system.pools, step=1)
    system.out_of_stock(A100)
    await system.until("moved", lambda: H100 in system.pools.values())
    await system.until("ready", system.is_ready)
    assert {node.labels[labels.INSTANCE_TYPE] for node in system.world.list(Node)} == {H100}


async def test_spot_capacity_first(system: "System") -> None:
    """The cloud has no spot capacity of the first instance type: its on-demand nodes come before other types."""
    system.simulator.faults.add(named("sku-not-available", times=1))
    await system.start()
    system.apply(preset=PRESET, instanceTypes=[A100, H100], capacityType="spot-preferred")
    await system.until("ready", system.is_ready)
    assert list(system.pools.values()) == [A100]
    assert len(system.puts) == 2
    (node,) = system.world.list(Node)
    assert node.labels[labels.CAPACITY_TYPE] == "on-demand"
    assert "refused" not in json.loads(system.workspace().annotations[labels.ALTERNATIVES])


@pytest.mark.slow("test_the_first_one_is_used_if_the_cloud_has_it")
async def test_a_workspace_that_was_scaled_to_zero_begins_with_the_first_one(system: "System") -> None:
    system.out_of_stock(A100)
    await system.start()
    system.apply(preset=PRESET, instanceTypes=[A100, H100])
    await system.until("ready", system.is_ready)
    assert list(system.pools.values()) == [H100]
    system.in_stock(A100)
    await system.world.advance(HOUR)
    system.world.patch(type(system.workspace()), "w", {"spec": {"replicas": 0}})
    await system.until("no nodes", lambda: not system.is_ready() and not system.claims() and not system.pools)
    assert record(system).chosen == ""
    system.world.patch(type(system.workspace()), "w", {"spec": {"replicas": 1}})
    await system.until("ready", lambda: bool(system.pools) and system.is_ready())
    assert list(system.pools.values()) == [A100]
