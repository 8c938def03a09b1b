"""Everything that can fail fails now and then, in seeded orders; the end is always the same."""

import random
from typing import TYPE_CHECKING

import pytest

from kaito.api import Workspace, labels
from kaito.runtime.kinds import Service, StatefulSet

if TYPE_CHECKING:
    from test.unit.workspace.conftest import Cluster

NAMES = ("alpha", "beta", "gamma")


def several(phi: Workspace) -> list[Workspace]:
    return [phi.with_metadata(name=name, uid="") for name in NAMES]


async def play_along(cluster: "Cluster") -> None:
    """The provisioner and the workload controllers do their part for whatever there is."""
    for claim in cluster.claims():
        if not claim.deleting and not claim.is_ready:
            cluster.join(claim)
    for workload in cluster.world.list(StatefulSet):
        if workload.status.ready_replicas < (workload.spec.replicas or 0):
            cluster.serve(workload.name)


@pytest.mark.sample(3)
@pytest.mark.seeds(12)
async def test_any_order_of_events_ends_the_same(cluster: "Cluster", phi: Workspace) -> None:
    async with cluster.controller():
        for workspace in several(phi):
            cluster.apply(workspace)
        for _ in range(3):
            await cluster.world.settle()
            await play_along(cluster)
        await cluster.world.settle()
        assert [cluster.columns(name) for name in NAMES] == [("True", "True", "True")] * 3
        assert len(cluster.claims()) == 3
        assert cluster.world.count("create", cluster.kind) == 3


@pytest.mark.sample(2)
@pytest.mark.parametrize("seed", range(8))
async def test_a_server_that_keeps_failing_delays_and_changes_nothing(
    cluster: "Cluster", phi: Workspace, seed: int
) -> None:
    world, rng = cluster.world, random.Random(seed)
    async with cluster.controller():
        for workspace in several(phi):
            cluster.apply(workspace)
        for _ in range(12):
            method = rng.choice(["GET", "POST", "PATCH"])
            kind = rng.choice([Workspace, cluster.kind, Service, StatefulSet, None])
            match rng.randrange(4):
                case 0:
                    world.fail_next(method, kind, status=rng.choice([409, 500, 503]))
                case 1:
                    world.fail_next(method, kind, status=429, retry_after=rng.randrange(1, 4))
                case 2:
                    world.fail_next(method, kind, drop_connection=True)
                case _:
                    world.cut_watches()
            await world.advance(rng.random() * 10)
            await play_along(cluster)
        for _ in range(4):
            await world.advance(60)
            await play_along(cluster)
        await world.advance(60)
        assert [cluster.columns(name) for name in NAMES] == [("True", "True", "True")] * 3
        assert len(cluster.claims()) == 3, "never a second node for one place"
        for name in NAMES:
            world.delete(Workspace, name)
        await world.advance(60)
        assert cluster.claims() == []
        assert world.list(Workspace) == []


async def test_namespaces_do_not_share_nodes(cluster: "Cluster", phi: Workspace) -> None:
    """`a-b`/`c` and `a`/`b-c` join to the same text; their claims must not."""
    first = phi.with_metadata(namespace="a-b", name="c", uid="")
    second = phi.with_metadata(namespace="a", name="b-c", uid="")
    async with cluster.controller():
        for workspace in (first, second):
            cluster.namespace(workspace.namespace)
            cluster.apply(workspace)
        await cluster.world.settle()
        owners = {(c.labels[labels.WORKSPACE_NAMESPACE], c.labels[labels.WORKSPACE]) for c in cluster.claims()}
        assert owners == {("a-b", "c"), ("a", "b-c")}
        one = next(c for c in cluster.claims() if c.labels[labels.WORKSPACE] == "c")
        cluster.join(one)
        await cluster.world.advance(1)  # the status of the nodes follows the workload within a second
        ready = {
            w.name: [c.status for c in w.status.conditions if c.type == "ResourceReady"]
            for w in cluster.world.list(Workspace)
        }
        assert ready == {"c": ["True"], "b-c": ["False"]}


async def test_status_and_edits_of_other_clients_are_kept(cluster: "Cluster", phi: Workspace) -> None:
    """Other clients write the same object during a reconcile: both changes are kept."""
    world = cluster.world
    cluster.apply(phi)
    async with cluster.controller():
        await world.settle()
        theirs = {
            "type": "TheirCondition",
            "status": "True",
            "reason": "Theirs",
            "message": "",
            "lastTransitionTime": "2030-01-01T00:00:00Z",
        }
        mine = [c.to_dict() for c in cluster.workspace().status.conditions]
        world.patch(Workspace, phi.name, {"status": {"conditions": [*mine, theirs]}}, subresource="status")
        cluster.join(cluster.claim())
        await world.settle()
        cluster.serve()
        await world.settle()
        assert cluster.conditions()["TheirCondition"][0] == "True"
        assert cluster.columns() == ("True", "True", "True")
