"""The orphan collector: claims that name a Workspace which does not exist any more cost money and serve nobody.

They are left by deletions that ran out of patience, and by finalizers removed by hand. Runs every five minutes on the
leader. A claim is deleted when it is old enough not to be a race, and the server itself (not the cache) says that its
Workspace is gone or is another one of the same name.
"""

from datetime import timedelta
from typing import final

from kaito.api import Claim, Workspace, labels
from kaito.runtime.controller import Controller, Periodic
from kaito.runtime.reconcile import Again, PeriodicRequest
from kaito.workspace.ownership import owner_key, owns

PERIOD_SECONDS = 300.0
LEAST_AGE = timedelta(minutes=10)
"""Younger claims may belong to a Workspace whose creation has not reached us."""


@final
class OrphanCollector:
    """Deletes claims of one kind whose Workspace is gone."""

    def __init__(self, kind: type[Claim]) -> None:
        self._kind = kind

    async def collect(self, tick: PeriodicRequest) -> Again | None:
        """Look at every claim once; a failure for one is raised after the others were looked at."""
        errors: list[Exception] = []
        for claim in await tick.api.list(self._kind):
            try:
                if await self._is_orphan(tick, claim):
                    await tick.api.delete(claim)
                    tick.log.warning("orphaned claim deleted", claim=claim.name, workspace=str(owner_key(claim)))
            except Exception as error:  # noqa: BLE001 - collected and raised below
                errors.append(error)
        if errors:
            raise ExceptionGroup(f"{len(errors)} claims could not be looked at", errors)
        return None

    async def _is_orphan(self, tick: PeriodicRequest, claim: Claim) -> bool:
        key, made = owner_key(claim), claim.metadata.creation_timestamp
        if key is None or claim.deleting or labels.WORKSPACE_UID not in claim.labels:
            return False
        if made is None or tick.clock.now() - made < LEAST_AGE:
            return False
        cached = await tick.api.find(Workspace, key.name, key.namespace)
        if cached is not None and owns(cached, claim):
            return False
        current = await tick.api.find(Workspace, key.name, key.namespace, consistency="live")
        return current is None or not owns(current, claim)


def orphan_collector(kind: type[Claim]) -> Periodic:
    """The periodic controller."""
    return Controller.every(PERIOD_SECONDS, OrphanCollector(kind).collect, name="orphans")
