"""A stand-in for Karpenter's static NodePools on the in-memory API server, one step at a time.

It does what `test/e2e/test_node_pools.py` sees of the real one: it creates and deletes claims until their number is
that of the pool, deletes claims without an instance first and then those without a pod, and replaces claims that differ
from the template one at a time, the new one first.
"""

import hashlib
import json
from typing import Any

from kaito.api import NodeClaim, labels
from kaito.api.karpenter import NodePool
from kaito.runtime.crd import Version, crd
from kaito.runtime.kinds import Pod
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.testing import World
from kaito.workspace.settings import WorkspaceSettings
from test.unit.workspace.conftest import Cluster

HASH = "karpenter.sh/nodepool-hash"
DEFINITION: dict[str, Any] = crd([Version(model=NodePool, storage=True)])


class Pools(Cluster):
    """A cluster in which Karpenter fulfills NodePools."""

    def __init__(self, world: World, settings: WorkspaceSettings) -> None:
        super().__init__(world, settings)
        world.install(DEFINITION)
        self.created = 0
        self.refuses = False
        """Whether the cloud is out of capacity: claims are deleted right after their creation, with an Event."""

    def pools(self) -> list[NodePool]:
        return self.world.list(NodePool)

    def pool(self) -> NodePool:
        (only,) = self.pools()
        return only

    def replicas(self) -> int:
        return self.pool().spec.replicas or 0

    def live(self, pool: NodePool) -> list[NodeClaim]:
        found = [claim for claim in self.world.list(NodeClaim) if claim.labels.get(labels.NODEPOOL) == pool.name]
        return [claim for claim in found if not claim.deleting]

    def scale_step(self) -> bool:
        """Creates or deletes one claim; returns whether it did."""
        for pool in self.pools():
            live, wanted = self.live(pool), pool.spec.replicas or 0
            if len(live) < wanted:
                self.create(pool)
                return True
            if len(live) > wanted:
                self.world.delete(NodeClaim, self._victim(live).name)
                return True
        return False

    def _victim(self, live: list[NodeClaim]) -> NodeClaim:
        busy = {pod.spec.node_name for pod in self.world.list(Pod) if not pod.deleting}
        return min(live, key=lambda claim: (bool(claim.status.provider_id), claim.status.node_name in busy, claim.name))

    def create(self, pool: NodePool) -> NodeClaim:
        """Creates a claim from the template."""
        self.created += 1
        template = pool.spec.template
        claim = NodeClaim.model_validate(
            {
                "metadata": ObjectMeta(
                    name=f"{pool.name}-{self.created:05d}",
                    labels={**template.metadata.labels, labels.NODEPOOL: pool.name},
                    annotations={HASH: template_hash(pool)},
                ).to_dict(),
                "spec": template.spec.to_dict(),
            }
        )
        return self.world.put(claim)

    async def fulfill(self, *, joins: bool = True) -> None:
        """Runs controller and stand-in until neither does anything."""
        for _ in range(20):
            await self.world.settle()
            if not self.scale_step():
                break
        if joins:
            for pool in self.pools():
                for claim in self.live(pool):
                    if not claim.status.node_name:
                        self.join(claim)
        await self.world.settle()

    def drift_step(self) -> str:
        """Replaces the first claim that differs from its template, the new one first; returns its name."""
        for pool in self.pools():
            for claim in self.live(pool):
                if claim.annotations.get(HASH) != template_hash(pool):
                    self.join(self.create(pool))
                    self.world.delete(NodeClaim, claim.name)
                    return claim.name
        return ""


def template_hash(pool: NodePool) -> str:
    """Digest of everything whose change replaces nodes."""
    return hashlib.sha256(json.dumps(pool.spec.template.to_dict(), sort_keys=True).encode()).hexdigest()[:10]
