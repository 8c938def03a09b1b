"""A reconcile function that never waits does not keep the rest of the process from running."""

import asyncio

from kaito.runtime.controller import Controller
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.reconcile import Again, Request
from kaito.runtime.testing import World


async def test_other_tasks_get_their_turn_between_runs_that_never_wait(world: World) -> None:
    runs = 0
    turns = 0

    async def reconcile(request: Request[ConfigMap]) -> Again | None:
        nonlocal runs
        runs += 1
        return Again(0) if runs < 500 else None

    async with world.manager(Controller(ConfigMap, reconcile)):
        world.put(ConfigMap(metadata=ObjectMeta(name="a")))
        while runs < 500:
            await asyncio.sleep(0)
            turns += 1
    assert turns >= 500
