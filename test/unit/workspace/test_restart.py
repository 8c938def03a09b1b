"""A controller that crashes anywhere and restarts reaches the same state, and never creates a claim twice."""

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from kaito.api import Workspace
from kaito.runtime.errors import KaitoRuntimeError
from kaito.runtime.kinds import Service, StatefulSet

if TYPE_CHECKING:
    from test.unit.workspace.conftest import Cluster


@pytest.mark.parametrize("written", ["create", "patch-finalizer", "patch-status", "patch-service", "patch-statefulset"])
async def test_a_write_without_an_answer_is_not_made_twice(cluster: "Cluster", phi: Workspace, written: str) -> None:
    """The connection breaks after the server acted: the controller cannot know, and must find out."""
    world = cluster.world
    cluster.apply(phi)
    match written:
        case "create":
            world.fail_next("POST", cluster.kind, drop_connection=True)
        case "patch-finalizer":
            world.fail_next("PATCH", Workspace, subresource="", drop_connection=True)
        case "patch-status":
            world.fail_next("PATCH", Workspace, subresource="status", drop_connection=True)
        case "patch-service":
            world.fail_next("PATCH", Service, drop_connection=True)
        case _:
            world.fail_next("PATCH", StatefulSet, drop_connection=True)
    async with cluster.controller():
        await world.settle()
        await world.advance(5)
        cluster.join(cluster.claim())
        await world.advance(5)
        cluster.serve()
        await world.advance(5)
        assert cluster.columns() == ("True", "True", "True")
        assert len(cluster.claims()) == 1


@pytest.mark.sample(3)
@pytest.mark.parametrize("moment", range(1, 16))
async def test_killed_after_any_request_it_finishes_after_a_restart(
    cluster: "Cluster", phi: Workspace, moment: int
) -> None:
    """The n-th write of the process is its last: every later one gets no answer and does nothing."""
    world = cluster.world
    cluster.apply(phi)
    names: set[str] = set()
    async with cluster.killed_after(moment):
        with suppress(KaitoRuntimeError):  # there may be nothing to play along with yet
            await cluster.until_serving()
        writes = [request for request in cluster.world.requests if request.method != "GET"]
        assert len(writes) <= moment, "a dead process writes nothing"
        names |= {claim.name for claim in cluster.claims()}
    async with cluster.controller():
        await world.settle()
        names |= {claim.name for claim in cluster.claims()}
        for claim in cluster.claims():
            cluster.join(claim)
        await world.settle()
        cluster.serve()
        await world.settle()
        assert cluster.columns() == ("True", "True", "True")
        assert len(names) == 1, "never more than one claim for one node"


async def test_a_lagging_cache_never_creates_twice(cluster: "Cluster", phi: Workspace) -> None:
    cluster.world.lag(cluster.kind, 30)
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.world.settle()
        for _ in range(5):
            cluster.world.patch(Workspace, phi.name, {"metadata": {"labels": {"touched": str(_)}}})
            await cluster.world.advance(3)
        assert len(cluster.claims()) == 1
        assert cluster.world.count("create", cluster.kind) == 1


async def test_a_workspace_made_again_under_its_name_inherits_nothing(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        old = cluster.claim()
    cluster.world.patch(Workspace, phi.name, {"metadata": {"finalizers": []}})
    cluster.world.delete(Workspace, phi.name)
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.world.settle()
        names = [claim.name for claim in cluster.claims()]
        assert len(names) == 2
        assert old.name in names, "younger than ten minutes: the collector waits"
        assert cluster.columns()[0] == "False", "the old node is not its node"
        await cluster.world.advance(1000)
        assert old.name not in [claim.name for claim in cluster.claims()]
