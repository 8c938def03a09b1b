"""A controller that crashes at any write buys nothing twice: budgets, alternatives of instance types, their records."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from kaito.api import Claim, Workspace, labels
from kaito.prices.book import PriceBook
from kaito.prices.table import parse_table
from kaito.runtime.errors import KaitoRuntimeError
from kaito.runtime.kinds import Namespace
from kaito.runtime.manager import Manager, Settings
from kaito.runtime.testing import CrashingTransport, CrashPoint
from kaito.workspace.main import workspace_manager
from kaito.workspace.settings import NodeApi, WorkspaceSettings

if TYPE_CHECKING:
    from test.unit.workspace.conftest import Cluster

V100, A100 = "Standard_NC6s_v3", "Standard_NC24ads_A100_v4"
BOOK = PriceBook(
    own=parse_table(
        f"prices: [{{region: eastus, instanceType: {V100}, onDemand: 3}}, "
        f"{{region: eastus, instanceType: {A100}, onDemand: 4}}]",
        "own",
    )
)
NEVER = 10_000


@pytest.fixture
def settings() -> WorkspaceSettings:
    return WorkspaceSettings(node_api=NodeApi.NODECLAIM, region="eastus")


class Purchases:
    """Counts the claims that exist at the same time, after every write to the API server."""

    def __init__(self, cluster: "Cluster") -> None:
        self.cluster = cluster
        self.names: dict[str, str] = {}
        """Instance types of all claims by name."""
        self.most = 0
        cluster.world.server.on_write(self._note)

    def _note(self, resource: str, *_: object) -> None:
        if not resource.startswith(("machines", "nodeclaims")):
            return
        live = [claim for claim in self.cluster.claims() if not claim.deleting]
        self.names |= {claim.name: claim.instance_type for claim in live}
        self.most = max(self.most, len(live))


def process(cluster: "Cluster", writes: int = NEVER) -> Manager:
    """Returns a controller that crashes at its n-th write: the server performs it, and the reply is lost."""
    runtime = Settings(
        metrics_bind_address="0", health_probe_bind_address="0", leader_elect=False, graceful_shutdown_seconds=1
    )
    manager = workspace_manager(
        cluster.settings,
        runtime,
        transport=CrashingTransport(cluster.world.transport(), CrashPoint(writes)),
        clock=cluster.world.clock,
        prices=BOOK,
    )
    cluster.world.track(manager)
    return manager


def refuse(cluster: "Cluster", claim: Claim) -> None:
    condition = {"type": claim.stages.launched, "status": "False", "reason": "InsufficientCapacity", "message": "none"}
    cluster.set_claim_status(claim, condition)


def with_alternatives(workspace: Workspace, *names: str) -> Workspace:
    document: dict[str, Any] = workspace.to_dict()
    document["resource"] = {**document["resource"], "instanceTypes": list(names)}
    document["resource"].pop("instanceType", None)
    return Workspace.model_validate(document)


@pytest.mark.parametrize("moment", range(1, 13))
async def test_a_budget_for_one_buys_one(cluster: "Cluster", phi: Workspace, moment: int) -> None:
    world, bought = cluster.world, Purchases(cluster)
    world.patch(Namespace, "default", {"metadata": {"annotations": {labels.HOURLY_BUDGET: "5.00"}}})
    cluster.apply(phi)
    cluster.apply(phi.with_metadata(name="other"))
    async with process(cluster, moment):
        with suppress(KaitoRuntimeError):
            await world.advance(20)
    async with process(cluster):
        await world.advance(200)
        assert bought.most == 1
        assert len(bought.names) == 1


@pytest.mark.parametrize("moment", range(1, 13))
async def test_a_move_to_the_next_instance_type_buys_one_node_at_a_time(
    cluster: "Cluster", phi: Workspace, moment: int
) -> None:
    world, bought = cluster.world, Purchases(cluster)
    cluster.apply(with_alternatives(phi, V100, A100))
    async with process(cluster):
        await world.advance(5)
    refuse(cluster, cluster.claim())
    async with process(cluster, moment):
        with suppress(KaitoRuntimeError):
            await world.advance(20)
    async with process(cluster):
        await world.advance(200)
        assert cluster.claim().instance_type == A100
        assert (bought.most, sorted(bought.names.values())) == (1, sorted([V100, A100]))


@pytest.mark.parametrize("moment", range(1, 13))
async def test_a_requested_move_is_made_once(cluster: "Cluster", phi: Workspace, moment: int) -> None:
    world, bought = cluster.world, Purchases(cluster)
    cluster.apply(with_alternatives(phi, V100, A100))
    async with process(cluster):
        await world.advance(5)
        refuse(cluster, cluster.claim())
        await world.advance(60)
        cluster.join(cluster.claim())
        await world.advance(5)
    world.patch(Workspace, phi.name, {"metadata": {"annotations": {labels.REPLAN: "now"}}})
    async with process(cluster, moment):
        with suppress(KaitoRuntimeError):
            await world.advance(20)
    async with process(cluster):
        await world.advance(200)
        assert labels.REPLAN not in cluster.workspace().annotations
        assert cluster.claim().instance_type == V100
        assert bought.most == 1
        assert len(bought.names) == 3
