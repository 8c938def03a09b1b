"""Faults of Azure, of nodes and pods, and of the webhook."""

import random
from typing import Any, Final, cast

from kaito.cloud.azure.simulator import named
from kaito.runtime.testing.simulate import Run, StepKind
from kaito.simulation.manifests import Object
from kaito.simulation.workspaces import SIZES, WORKSPACES

ARM_FAULTS: Final = (
    "capacity",
    "zonal-capacity",
    "sku-not-available",
    "quota-pool",
    "busy",
    "throttled",
    "throttled-pool",
    "canceled",
    "unauthorized",
    "policy",
    "quota",
    "server-error",
    "hang",
    "drop",
    "accepted-then-dropped",
    "truncated",
    "status-lost",
    "status-stuck",
    "status-stuck-failed",
    "never-ends",
    "succeeded-but-failed",
    "slow-delete",
    "subnet-full",
    "internal",
    "cluster-gone",
)
"""Named faults of the simulator that a run may meet."""

SECONDS: Final = (30.0, 120.0, 600.0, 1500.0)

NODE_FAULTS: Final[dict[str, Object]] = {
    "not ready": {"not_ready": True},
    "silent": {"heartbeat_stop": True},
    "without GPUs": {"gpu_count_override": 0},
    "never joining": {"never_join": True},
    "joining late": {"join_delay": 1200.0},
    "evicted with notice": {"evicted_after": 30.0},
    "evicted without notice": {"vanishes": True},
    "outliving their pool": {"node_outlives_pool": True},
    "in lower case": {"lowercase_resource_group": True},
}
"""Overrides of the nodes' behavior by what the nodes then are."""


def faults() -> list[StepKind]:
    """Returns the kinds of faults."""
    return [
        StepKind(
            name="azure",
            apply=azure,
            draw=lambda rng: {"fault": rng.choice(ARM_FAULTS), "times": rng.choice((1, 1, 2, 4))},
            weight=6,
            is_fault=True,
            text="Azure: {fault}, {times} times",
        ),
        StepKind(
            name="quota",
            apply=quota,
            draw=lambda rng: {"cores": rng.choice((0, 24, 48)), "seconds": rng.choice(SECONDS)},
            weight=1.5,
            is_fault=True,
            text="Azure: quota of {cores} cores for {seconds} s",
        ),
        StepKind(
            name="stock-out",
            apply=stock_out,
            draw=_draw_stock_out,
            weight=1.5,
            is_fault=True,
            text="Azure: no capacity for {size} for {seconds} s",
        ),
        StepKind(
            name="nodes",
            apply=nodes,
            draw=_draw_nodes,
            weight=4,
            is_fault=True,
            text="nodes of pools '{pools}' are {fault} for {seconds} s",
        ),
        StepKind(
            name="pods-crash",
            apply=pods_crash,
            draw=_draw_pods,
            weight=1.5,
            is_fault=True,
            text="pods of {namespace}/{name} crash for {seconds} s",
        ),
        StepKind(
            name="webhook",
            apply=webhook,
            draw=lambda rng: {"seconds": rng.choice((10.0, 60.0, 300.0))},
            weight=1,
            is_fault=True,
            text="the admission webhook does not answer for {seconds} s",
        ),
    ]


def _draw_stock_out(rng: random.Random) -> Object:
    return {"size": rng.choice(SIZES), "seconds": rng.choice(SECONDS)}


def _draw_nodes(rng: random.Random) -> Object:
    pools = rng.choice((".*", "ws[0-9a-m].*", "[a-z]*[02468]"))
    return {"fault": rng.choice(tuple(NODE_FAULTS)), "pools": pools, "seconds": rng.choice(SECONDS)}


def _draw_pods(rng: random.Random) -> Object:
    namespace, name = rng.choice(WORKSPACES)
    return {"namespace": namespace, "name": name, "seconds": rng.choice(SECONDS)}


async def azure(run: Run, *, fault: str, times: int) -> None:
    """Injects a named fault into the next requests; what is left of it ends with all faults."""
    script = _cloud(run).simulator.faults
    rule = script.add(named(fault, times=times))

    def end() -> None:
        if rule in script.active():
            script.clear(rule.name)

    run.end_after(600.0, end, disturbs=180.0)


async def quota(run: Run, *, cores: int, seconds: float) -> None:
    """Limits the cores of the region."""
    limits = _cloud(run).simulator.cluster.quota
    limits["cores"] = cores
    run.end_after(seconds, lambda: limits.pop("cores", None), disturbs=0.0)


async def stock_out(run: Run, *, size: str, seconds: float) -> None:
    """Takes away the capacity for a VM size."""
    capacity = _cloud(run).simulator.cluster.capacity
    capacity[size.lower()] = 0
    run.end_after(seconds, lambda: capacity.pop(size.lower(), None), disturbs=0.0)


async def nodes(run: Run, *, fault: str, pools: str, seconds: float) -> None:
    """Changes the behavior of nodes."""
    run.end_after(seconds, _cloud(run).simulator.knobs.set(pools, **NODE_FAULTS[fault]), disturbs=0.0)


async def pods_crash(run: Run, *, namespace: str, name: str, seconds: float) -> None:
    """Makes the pods of a Workspace crash."""
    controllers = cast("Any", run.simulation).controllers
    controllers.broken[f"{namespace}/{name}"] = run.now + seconds
    controllers.reconcile()


async def webhook(run: Run, *, seconds: float) -> None:
    """Lets the webhook hang."""
    simulation: Any = run.simulation
    simulation.webhook_hangs += 1

    def end() -> None:
        simulation.webhook_hangs -= 1

    run.end_after(seconds, end)


def _cloud(run: Run) -> Any:
    return cast("Any", run.simulation).cloud
