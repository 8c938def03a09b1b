"""Prices the nodes of Workspaces, for `status.cost` and for metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

from kaito.api import Claim, labels
from kaito.prices.book import PriceBook
from kaito.prices.price import CapacityType, Offering, Price
from kaito.runtime.kinds import Node
from kaito.workspace.cost_ledger import Instance, started_at
from kaito.workspace.settings import WorkspaceSettings


@final
@dataclass(slots=True)
class NodePrices:
    """Prices of nodes from the tables, without the network; and the claims that this process has seen."""

    book: PriceBook = field(default_factory=PriceBook)
    _seen: dict[str, set[str]] = field(default_factory=dict[str, set[str]])

    def find(self, claim: Claim, node: Node | None, settings: WorkspaceSettings) -> Price | None:
        """Returns the price of a claim's node; None if its region, its type or the price is unknown."""
        found = _labels(claim, node)
        region = found.get(labels.REGION) or settings.region
        instance_type = found.get(labels.INSTANCE_TYPE) or claim.instance_type
        if not region or not instance_type:
            return None
        capacity: CapacityType = "spot" if found.get(labels.CAPACITY_TYPE) == "spot" else "on-demand"
        return self.book.find_offline(Offering(settings.cloud, region, instance_type, capacity))

    def instances(
        self, claims: Sequence[Claim], nodes: Mapping[str, Node], settings: WorkspaceSettings
    ) -> list[Instance]:
        """Returns the instances of the claims that exist in the cloud, those that are being deleted included."""
        found: list[Instance] = []
        for claim in claims:
            node = nodes.get(claim.status.node_name)
            since = started_at(claim, node)
            if since is not None:
                found.append(Instance(name=claim.name, since=since, price=self.find(claim, node, settings)))
        return found

    def seen(self, workspace_uid: str, claims: Sequence[Claim]) -> frozenset[str]:
        """Returns the names of the claims that earlier reconciles of this process have seen, and records these."""
        before = frozenset(self._seen.get(workspace_uid, ()))
        self._seen[workspace_uid] = {claim.name for claim in claims}
        return before

    def forget(self, workspace_uid: str) -> None:
        """Removes a Workspace that is being deleted."""
        self._seen.pop(workspace_uid, None)


def _labels(claim: Claim, node: Node | None) -> dict[str, str]:
    """Returns the labels of the claim and of its node, which has precedence."""
    return {**claim.labels, **(node.labels if node is not None else {})}
