"""Upgrades during a run: replicas of two releases run at the same time, and objects are those of an earlier release.

Releases differ in the images of the servers, so that a change of the leader changes the templates of the pods. Claims
are reduced to what an earlier release, or upstream Kaito, has written.
"""

import asyncio
import random
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, cast

from kaito.api import Machine, NodeClaim, labels
from kaito.runtime.client import MergePatch
from kaito.runtime.testing.simulate import Run, StepKind
from kaito.simulation.manifests import Object
from kaito.simulation.workspaces import attempt

RELEASES: Final[dict[str, Object]] = {
    "current": {},
    "older": {
        "serving_image": "registry.example.com/kaito-serving:0.0.9",
        "vllm_image": "registry.example.com/kaito-vllm:0.0.9",
    },
}
"""Settings of workspace-controller by release, as an upgrade of the manifests changes them."""

SETTLE_SECONDS: Final = 60.0
"""Time for the graceful shutdown of a replica, and the start of its successor."""


def upgrade_actions(processes: Sequence[str]) -> list[StepKind]:
    """Returns the actions of administrators.

    Args:
        processes: names of the processes that are upgraded one by one.
    """

    def draw(rng: random.Random) -> Object:
        return {"process": rng.choice(processes), "release": rng.choice(tuple(RELEASES))}

    return [
        StepKind(
            name="upgrade",
            apply=upgrade,
            draw=draw,
            weight=1.0,
            is_fault=True,
            text="{process} is replaced by one of the {release} release",
        ),
        StepKind(
            name="roll-out",
            apply=roll_out,
            draw=lambda rng: {"release": rng.choice(tuple(RELEASES)), "seconds": rng.choice((0.0, 20.0, 90.0))},
            weight=0.7,
            is_fault=True,
            text="all processes are replaced by those of the {release} release, {seconds} s after each other",
        ),
        StepKind(
            name="older-claims",
            apply=older_claims,
            weight=0.5,
            text="all claims become those of an earlier release, without the UID of their Workspace",
        ),
    ]


async def upgrade(run: Run, *, process: str, release: str) -> None:
    """Shuts a process down gracefully; its next start is of another release."""
    cast("Any", run.simulation).releases[process] = release
    run.processes[process].stop()
    run.fault_lasts(SETTLE_SECONDS)


async def roll_out(run: Run, *, release: str, seconds: float) -> None:
    """Replaces all processes one by one, as a Deployment does."""

    async def replace() -> None:
        for process in run.processes:
            if run.is_calm:
                return  # the end of all faults is the end of the roll-out
            await upgrade(run, process=process, release=release)
            run.fault_lasts(seconds + SETTLE_SECONDS)
            await asyncio.sleep(seconds)

    run.scope.spawn(replace(), name=f"roll out {release}")


async def older_claims(run: Run) -> None:
    """Removes the label that an earlier release, and upstream Kaito, have not set on claims."""
    patch = MergePatch({"metadata": {"labels": {labels.WORKSPACE_UID: None}}})
    for kind in (Machine, NodeClaim):
        for claim in run.world.list(kind):
            if not claim.deleting:
                await attempt(run, partial(run.client.patch, claim, patch))
