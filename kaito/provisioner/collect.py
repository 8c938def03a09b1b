"""Garbage collection: instances whose claim is gone, and claims whose instance or node is.

The ordinary way never leaves any; this is for finalizers removed by force, instances deleted at the portal, crashes of
the cloud. Deleting somebody's GPUs by mistake is worse than keeping an orphan for a while, so an instance goes only if
it carries our marker, a live read says its claim is gone, two scans in a row saw it so, and only a few at once.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import final

from kaito.api.karpenter import Claim
from kaito.cloud.errors import CloudError
from kaito.cloud.provider import Instance
from kaito.provisioner import reasons
from kaito.provisioner.context import Tools, nodepool
from kaito.provisioner.failures import failure
from kaito.provisioner.kinds import is_served
from kaito.provisioner.nodes import is_managed, nodes_of, owns_instance
from kaito.runtime import Again
from kaito.runtime.errors import ApiError, KaitoRuntimeError, TransportError
from kaito.runtime.kinds import Node
from kaito.runtime.reconcile import PeriodicRequest

SHARE_AT_ONCE = 0.5
"""Of all our instances, at most this part is deleted in one scan; at least one."""


@final
class Collector:
    """Remembers what the scan before found."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._orphans: set[str] = set()
        self._broken: set[str] = set()

    async def scan(self, tick: PeriodicRequest) -> Again | None:
        """Look at every instance and every claim once."""
        installation = await self._tools.installation.id(tick.api)
        try:
            instances = await self._tools.cloud.list()
        except CloudError as error:
            tick.log.warning("no scan: the cloud does not list its instances", error=str(error))
            return None
        ours = [i for i in instances if i.marker is not None and i.marker.installation == installation]
        await self._collect_instances(tick, ours)
        await self._collect_claims(tick, {instance.name: instance for instance in instances})
        return None

    async def _collect_instances(self, tick: PeriodicRequest, ours: list[Instance]) -> None:
        served = {kind.kind: kind for kind in self._tools.kinds if await self._is_served(tick, kind)}
        orphans = [instance for instance in ours if await self._is_orphan(tick, instance, served)]
        self._tools.metrics.orphans.set(len(orphans))
        seen_twice = [instance for instance in orphans if instance.name in self._orphans]
        self._orphans = {instance.name for instance in orphans}
        limit = min(self._tools.settings.orphans_at_once, max(int(len(ours) * SHARE_AT_ONCE), 1))
        deleted = 0
        for instance in seen_twice:
            if deleted < limit and await self._delete_instance(tick, instance):
                deleted += 1

    async def _is_orphan(self, tick: PeriodicRequest, instance: Instance, served: Mapping[str, type[Claim]]) -> bool:
        marker = instance.marker
        if instance.state == "deleting" or marker is None or self._is_young(instance, tick.clock.now()):
            return False
        kind = served.get(marker.claim_kind)
        if kind is None:
            return False  # a kind that this process or the cluster does not serve: not ours to judge
        cached = await tick.api.find(kind, marker.claim_name)
        if cached is not None and cached.uid == marker.claim_uid:
            return False
        try:
            claim = await tick.api.find(kind, marker.claim_name, consistency="live")
        except KaitoRuntimeError as error:
            tick.log.warning("cannot tell whether the claim exists", instance=instance.name, error=str(error))
            return False
        return claim is None or claim.uid != marker.claim_uid

    async def _is_served(self, tick: PeriodicRequest, kind: type[Claim]) -> bool:
        """A missing definition answers 404 for every claim, which says nothing about any of them."""
        try:
            return await is_served(tick.api.client, kind)
        except KaitoRuntimeError as error:
            tick.log.warning("cannot tell whether the kind is installed", kind=kind.kind, error=str(error))
            return False

    def _is_young(self, instance: Instance, now: datetime) -> bool:
        created = instance.created
        return created is not None and (now - created).total_seconds() < self._tools.settings.orphan_grace

    async def _delete_instance(self, tick: PeriodicRequest, instance: Instance) -> bool:
        """Whether it is on its way out; one that cannot be deleted does not use up the others' turn."""
        if self._tools.settings.collect_dry_run:
            tick.log.warning("orphan found, dry run: not deleted", instance=instance.name)
            return False
        try:
            await self._tools.cloud.delete(instance.name)
        except CloudError as error:
            self._tools.metrics.refused_deletions.labels(failure(error, 1, self._tools.settings).reason).inc()
            tick.log.warning("orphan not deleted", instance=instance.name, error=str(error))
            return False
        note = f"agent pool {instance.name} of {instance.instance_type} had no claim any more and is deleted"
        tick.log.warning("orphan deleted", instance=instance.name, instance_type=instance.instance_type)
        if self._tools.installation.namespace is not None:
            tick.api.event(
                self._tools.installation.namespace, "Warning", reasons.ORPHAN_DELETED, note, action="Collect"
            )
        return True

    async def _collect_claims(self, tick: PeriodicRequest, instances: dict[str, Instance]) -> None:
        broken: dict[str, tuple[Claim, str]] = {}
        for kind in self._tools.kinds:
            for claim in await tick.api.list(kind):
                why = await self._breakage(tick, claim, instances.get(claim.name))
                if why:
                    broken[claim.uid] = (claim, why)
        seen_twice = [entry for uid, entry in broken.items() if uid in self._broken]
        self._broken = set(broken)
        for claim, why in seen_twice:
            tick.api.event(claim, "Warning", reasons.INSTANCE_GONE, f"{why}: the claim is deleted")
            self._tools.metrics.disrupted.labels("garbage_collected", nodepool(claim)).inc()
            try:
                await tick.api.delete(claim)
            except (ApiError, TransportError) as error:
                tick.log.warning("claim not deleted, trying again", claim=claim.name, error=str(error))

    async def _breakage(self, tick: PeriodicRequest, claim: Claim, instance: Instance | None) -> str:
        """Why a registered claim can never be ready again; empty when it can."""
        registered = claim.condition(claim.stages.registered)
        if claim.deleting or not is_managed(claim) or registered is None or not registered.is_true:
            return ""
        node = next((n for n in await nodes_of(tick.api, claim) if n.name == claim.status.node_name), None)
        launched = self._tools.cloud.instance_name(claim.status.provider_id)
        if instance is not None and owns_instance(instance, claim.uid, launched=launched):
            return "" if node is not None else f"node {claim.status.node_name} is gone, its machine cannot join again"
        if node is not None and _reports_ready(node):
            return ""  # a running node is better evidence than a list
        try:
            present = await self._tools.cloud.get(claim.name)
        except CloudError:
            return ""
        return "" if present is not None else f"agent pool {claim.name} is gone"


def _reports_ready(node: Node) -> bool:
    ready = node.condition("Ready")
    return ready is not None and ready.status == "True"
