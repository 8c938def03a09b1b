"""Failures of processes: each is killed or paused in turn, also the API server, etcd and Kubernetes' controllers."""

import asyncio
import random
from collections.abc import Mapping
from typing import Any, Final, cast

from kaito.runtime.testing.simulate import Run, StepKind

CONTROLLERS: Final = ("workspace-controller-0", "workspace-controller-1", "gpu-provisioner-0", "gpu-provisioner-1")
KUBERNETES: Final = ("kube-controller-manager", "kube-scheduler")
RECOVERY_SECONDS: Final = 60.0
"""Time after a failure until a process has started, another one has taken the lease, and the caches are filled."""


def process_faults() -> list[StepKind]:
    """Returns the kinds of failures of processes."""
    return [
        StepKind(
            name="kill",
            apply=kill,
            draw=lambda rng: {"program": rng.choice((*CONTROLLERS, *CONTROLLERS, *KUBERNETES)), "seconds": _down(rng)},
            weight=5,
            is_fault=True,
            is_essential=True,
            text="{program} is killed and starts again after {seconds} s",
        ),
        StepKind(
            name="pause",
            apply=pause,
            draw=lambda rng: {"program": rng.choice(CONTROLLERS), "seconds": rng.choice((5.0, 20.0, 40.0))},
            weight=3,
            is_fault=True,
            is_essential=True,
            text="{program} is paused for {seconds} s",
        ),
        StepKind(
            name="kill-api-server",
            apply=kill_api_server,
            draw=lambda rng: {"seconds": _down(rng), "etcd": rng.random() < 0.4},
            weight=1.5,
            is_fault=True,
            is_essential=True,
            text="the API server is killed for {seconds} s (with etcd: {etcd})",
        ),
    ]


def _down(rng: random.Random) -> float:
    return rng.choice((1.0, 5.0, 20.0))


def _programs(run: Run) -> Any:
    return cast("Any", run).programs


async def kill(run: Run, *, program: str, seconds: float) -> None:
    """Kills a process with SIGKILL, and starts it again."""
    programs = {each.name: each for each in _programs(run).all}
    held: set[str] = cast("Any", run).held
    chosen = programs[program]
    held.add(program)
    chosen.kill()

    def start() -> None:
        held.discard(program)
        chosen.start()

    run.end_after(seconds, start, disturbs=seconds + RECOVERY_SECONDS)


async def pause(run: Run, *, program: str, seconds: float) -> None:
    """Suspends a process: a leader loses its lease and must not write when it continues."""
    chosen = _programs(run).controllers[program]
    chosen.pause()
    run.end_after(seconds, chosen.resume, disturbs=seconds + RECOVERY_SECONDS)


async def kill_api_server(run: Run, *, seconds: float, etcd: bool) -> None:
    """Kills kube-apiserver, and etcd with it, and starts them again."""
    programs = _programs(run)
    run.fault_lasts(seconds + 2 * RECOVERY_SECONDS)
    await asyncio.to_thread(programs.kill_etcd if etcd else programs.kill_api_server)
    await asyncio.sleep(seconds)
    await asyncio.to_thread(programs.start_etcd if etcd else programs.plane.start_api_server)
    run.fault_lasts(RECOVERY_SECONDS)


def describe_counts(steps: Mapping[str, int]) -> str:
    """Returns how often each kind of step was played."""
    return ", ".join(f"{name} {count}" for name, count in sorted(steps.items()))
