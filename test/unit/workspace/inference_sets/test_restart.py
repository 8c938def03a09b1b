"""Restarts, crashes at every write and stale caches: no Workspace is created twice, none that is needed is deleted."""

from typing import TYPE_CHECKING

import pytest

from kaito.api import InferenceSet, Workspace
from kaito.runtime.manager import Settings
from kaito.workspace.main import workspace_manager
from test.unit.workspace.inference_sets.conftest import Sets
from test.unit.workspace.inference_sets.test_updates import PRESET
from test.unit.workspace.test_rbac import ROLES, USER

if TYPE_CHECKING:
    from kaito.runtime.testing import World
    from kaito.workspace.settings import WorkspaceSettings


def created(sets: Sets) -> int:
    """Number of names of Workspaces that were ever created."""
    events = sets.world.requests
    return len({r.path for r in events if r.method == "PATCH" and "/workspaces/" in r.path and r.status == 201})


@pytest.mark.sample(2)
@pytest.mark.parametrize("writes", range(1, 11))
async def test_killed_at_any_write_of_the_creation_a_set_has_the_same_workspaces(
    world: "World", settings: "WorkspaceSettings", writes: int
) -> None:
    sets = Sets(world, settings)
    sets.put(replicas=3)
    async with sets.killed_after(writes):
        await world.settle()
    async with sets.controller():
        await sets.provision()
        assert sets.names() == ["phi-0", "phi-1", "phi-2"]
        assert len(sets.claims()) == 3
        assert sets.condition()[0] == "True"
    assert created(sets) == 3


@pytest.mark.sample(2)
@pytest.mark.parametrize("writes", range(1, 13))
async def test_killed_at_any_write_of_a_scale_down_no_workspace_that_is_needed_is_deleted(
    world: "World", settings: "WorkspaceSettings", writes: int
) -> None:
    sets = Sets(world, settings)
    sets.put(replicas=3)
    async with sets.controller():
        await sets.provision()
    sets.scale(1)
    async with sets.killed_after(writes):
        await world.settle()
    async with sets.controller():
        await sets.provision()
        assert sets.names() == ["phi-0"]
        assert sets.condition() == ("True", "InferenceSetReady", "1 of 1 workspaces serve")
    assert created(sets) == 3


@pytest.mark.sample(2)
@pytest.mark.parametrize("writes", range(1, 12))
async def test_killed_at_any_write_of_a_replacement_one_additional_workspace_exists(
    world: "World", settings: "WorkspaceSettings", writes: int
) -> None:
    sets = Sets(world, settings)
    sets.put(replicas=2)
    async with sets.controller():
        await sets.provision()
    sets.change(PRESET)
    async with sets.killed_after(writes):
        await world.settle()
        assert len(sets.names()) <= 3
    async with sets.controller():
        for _ in range(6):
            await sets.provision()
            assert 2 <= len(sets.names()) <= 3
        assert {child.preset_name for child in sets.children().values()} == {"phi-3-mini-128k-instruct"}
    assert created(sets) == 4


async def test_a_stale_cache_creates_and_deletes_nothing_twice(sets: Sets) -> None:
    sets.put(replicas=3)
    async with sets.controller():
        await sets.provision()
        lag = sets.world.lag(Workspace, 30.0)
        sets.scale(1)
        await sets.world.advance(10)
        sets.scale(3)
        await sets.world.advance(10)
        sets.scale(2)
        await sets.world.advance(60)
        sets.world.heal(lag)
        await sets.world.advance(60)
        assert "phi-0" in sets.names(), "one that serves is never deleted"
        assert len(sets.names()) == 2
        await sets.provision()
        assert sets.condition()[0] == "True"


async def test_a_new_leader_with_a_stale_cache_deletes_only_what_is_surplus(sets: Sets) -> None:
    sets.put(replicas=3)
    async with sets.controller():
        await sets.provision()
    sets.world.delete(Workspace, "phi-1")
    for name in ("phi-1",):
        workspace = sets.world.find(Workspace, name)
        assert workspace is None or workspace.deleting
    sets.scale(2)
    lag = sets.world.lag(Workspace, 20.0)
    async with sets.controller():
        await sets.world.advance(10)
        sets.world.heal(lag)
        await sets.world.advance(60)
        assert sets.names() == ["phi-0", "phi-2"]


async def test_a_set_that_is_created_again_does_not_own_the_workspaces_of_the_old_one(sets: Sets) -> None:
    sets.put(replicas=1)
    async with sets.controller():
        await sets.provision()
        old = sets.children()["phi-0"].uid
        sets.world.delete(InferenceSet, "phi")
        await sets.world.advance(30)
        assert sets.world.find(InferenceSet, "phi") is None
        sets.put(replicas=1)
        await sets.provision()
        assert sets.children()["phi-0"].uid != old


async def test_the_role_suffices_for_the_life_of_a_set(sets: Sets) -> None:
    world = sets.world
    sets.namespace("kaito-system")
    world.apply(ROLES)
    runtime = Settings(metrics_bind_address="0", health_probe_bind_address="0", leader_elect=False)
    manager = workspace_manager(
        sets.settings, runtime, transport=world.transport(user=USER, agent="controller"), clock=world.clock
    )
    world.track(manager)
    sets.put(replicas=2)
    async with manager:
        await sets.provision()
        sets.change(PRESET)
        for _ in range(4):
            await sets.provision()
        sets.scale(1)
        await sets.provision()
        assert sets.condition()[0] == "True"
        world.delete(InferenceSet, "phi")
        await world.advance(30)
        assert world.find(InferenceSet, "phi") is None
    assert [f"{r.method} {r.path}" for r in world.requests if r.status == 403] == []
