"""The orphan collector: deletes claims whose Workspace no longer exists.

Such claims remain if a deletion timed out or a finalizer was removed by hand. The collector runs every five minutes on
the leader. It deletes a claim only if the claim is old enough to exclude a race, and if the API server, not the cache,
confirms that its Workspace does not exist or is a new one of the same name.
"""

from datetime import timedelta
from typing import Final, final

from kaito.api import Claim, Workspace, labels
from kaito.api.karpenter import NodePool
from kaito.runtime.controller import Controller, Periodic
from kaito.runtime.reconcile import Again, PeriodicRequest
from kaito.workspace.cost_ledger import started_at
from kaito.workspace.costs import NodePrices
from kaito.workspace.metrics import WorkspaceMetrics
from kaito.workspace.ownership import owner_key, owns_claim, owns_pool
from kaito.workspace.settings import NodeApi, WorkspaceSettings

PERIOD_SECONDS: Final = 300.0
MIN_AGE: Final = timedelta(minutes=10)
"""Minimum age of an orphan. A younger claim may belong to a Workspace that the cache does not contain yet."""


@final
class OrphanCollector:
    """Deletes claims of one kind whose Workspace does not exist."""

    def __init__(
        self, kind: type[Claim], settings: WorkspaceSettings, prices: NodePrices, metrics: WorkspaceMetrics
    ) -> None:
        self._kind, self._settings, self._prices, self._metrics = kind, settings, prices, metrics

    async def collect(self, request: PeriodicRequest) -> Again | None:
        """Checks every claim; failures are raised after all claims were checked. Measures what orphans cost.

        Raises:
            ExceptionGroup: some claims could not be checked or deleted.
        """
        errors: list[Exception] = []
        if self._settings.node_api is NodeApi.KARPENTER:
            errors += await self._collect_pools(request)
        orphans: list[Claim] = []
        for claim in await request.api.list(self._kind):
            try:
                orphans += [claim] if await self._has_no_owner(request, claim) else []
                if await self._is_orphan(request, claim):
                    await request.api.delete(claim)
                    request.log.warning("orphaned claim deleted", claim=claim.name, workspace=str(owner_key(claim)))
            except Exception as error:  # noqa: BLE001 - collected and raised below
                errors.append(error)
        self._metrics.set_orphans([self._prices.find(claim, None, self._settings) for claim in orphans])
        if errors:
            raise ExceptionGroup(f"{len(errors)} claims could not be checked", errors)
        return None

    async def _collect_pools(self, request: PeriodicRequest) -> list[Exception]:
        """Deletes NodePools without a Workspace, from which Karpenter would create their claims again."""
        errors: list[Exception] = []
        for pool in await request.api.list(NodePool):
            try:
                if await self._is_orphan(request, pool):
                    await request.api.delete(pool)
                    request.log.warning("orphaned node pool deleted", pool=pool.name, workspace=str(owner_key(pool)))
            except Exception as error:  # noqa: BLE001 - collected and raised by the caller
                errors.append(error)
        return errors

    async def _has_no_owner(self, request: PeriodicRequest, claim: Claim) -> bool:
        """Whether the claim has an instance and its Workspace does not exist, according to the cache."""
        key = owner_key(claim)
        if key is None or started_at(claim, None) is None:
            return False
        cached = await request.api.find(Workspace, key.name, key.namespace)
        return cached is None or not owns_claim(cached, claim)

    async def _is_orphan(self, request: PeriodicRequest, claim: Claim | NodePool) -> bool:
        key, created = owner_key(claim), claim.metadata.creation_timestamp
        if key is None or claim.deleting or labels.WORKSPACE_UID not in claim.labels:
            return False
        if created is None or request.clock.now() - created < MIN_AGE:
            return False
        cached = await request.api.find(Workspace, key.name, key.namespace)
        if cached is not None and _owns(cached, claim):
            return False
        current = await request.api.find(Workspace, key.name, key.namespace, consistency="live")
        return current is None or not _owns(current, claim)


def _owns(workspace: Workspace, owned: Claim | NodePool) -> bool:
    return owns_pool(workspace, owned) if isinstance(owned, NodePool) else owns_claim(workspace, owned)


def orphan_collector(
    kind: type[Claim], settings: WorkspaceSettings, prices: NodePrices, metrics: WorkspaceMetrics
) -> Periodic:
    """Returns the periodic controller that runs the collector."""
    collector = OrphanCollector(kind, settings, prices, metrics)
    return Controller.every(PERIOD_SECONDS, collector.collect, name="orphans")
