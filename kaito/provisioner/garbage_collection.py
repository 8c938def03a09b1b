"""Garbage collection: deletes instances without a claim, and claims without an instance or node.

Reconciles leave neither. They appear after finalizers were removed by hand, instances deleted in the Azure portal, or
failures of the cloud. Deleting an instance by mistake is worse than keeping an orphan for a while. An instance is
therefore deleted only if it has our owner tags, a live read shows that its claim does not exist, and two consecutive
runs find it; and each run deletes a few instances at most.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import final

from kaito.api.karpenter import Claim
from kaito.cloud.errors import CloudError
from kaito.cloud.provider import Instance
from kaito.provisioner import reasons
from kaito.provisioner.context import Dependencies, nodepool
from kaito.provisioner.failures import describe
from kaito.provisioner.kinds import is_served
from kaito.provisioner.nodes import is_managed, nodes_of, owns_instance, reports_ready
from kaito.runtime import Again
from kaito.runtime.errors import ApiError, KaitoRuntimeError, TransportError
from kaito.runtime.reconcile import PeriodicRequest

LARGEST_SHARE = 0.5
"""Largest part of our instances that one run deletes; at least one instance."""


@final
class GarbageCollector:
    """Compares claims, nodes and instances; remembers what the previous run found."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps
        self._orphans: set[str] = set()
        self._broken: set[str] = set()

    async def collect(self, request: PeriodicRequest) -> Again | None:
        """Runs garbage collection once."""
        installation = await self._deps.installation.id(request.api)
        try:
            instances = await self._deps.cloud.list()
        except CloudError as error:
            request.log.warning("garbage collection skipped: listing instances failed", error=str(error))
            return None
        ours = [i for i in instances if i.owner is not None and i.owner.installation == installation]
        await self._collect_instances(request, ours)
        await self._collect_claims(request, {instance.name: instance for instance in instances})
        return None

    async def _collect_instances(self, request: PeriodicRequest, ours: list[Instance]) -> None:
        served = {kind.kind: kind for kind in self._deps.kinds if await self._is_served(request, kind)}
        orphans = [instance for instance in ours if await self._is_orphan(request, instance, served)]
        self._deps.metrics.orphans.set(len(orphans))
        found_twice = [instance for instance in orphans if instance.name in self._orphans]
        self._orphans = {instance.name for instance in orphans}
        limit = min(self._deps.settings.gc_limit, max(int(len(ours) * LARGEST_SHARE), 1))
        deleted = 0
        for instance in found_twice:
            if deleted < limit and await self._delete_instance(request, instance):
                deleted += 1

    async def _is_orphan(self, request: PeriodicRequest, instance: Instance, served: Mapping[str, type[Claim]]) -> bool:
        owner = instance.owner
        if instance.state == "deleting" or owner is None or self._is_young(instance, request.clock.now()):
            return False
        kind = served.get(owner.claim_kind)
        if kind is None:
            return False  # this process cannot read claims of that kind
        cached = await request.api.find(kind, owner.claim_name)
        if cached is not None and cached.uid == owner.claim_uid:
            return False
        try:
            claim = await request.api.find(kind, owner.claim_name, consistency="live")
        except KaitoRuntimeError as error:
            request.log.warning("reading the claim of an instance failed", instance=instance.name, error=str(error))
            return False
        return claim is None or claim.uid != owner.claim_uid

    async def _is_served(self, request: PeriodicRequest, kind: type[Claim]) -> bool:
        """Whether the kind is installed: if it is not, reads answer 404 for claims that may still exist."""
        try:
            return await is_served(request.api.client, kind)
        except KaitoRuntimeError as error:
            request.log.warning("reading the installed kinds failed", kind=kind.kind, error=str(error))
            return False

    def _is_young(self, instance: Instance, now: datetime) -> bool:
        created = instance.created
        if created is None:
            return False
        return self._deps.future_times.age_seconds(instance.name, created, now) < self._deps.settings.gc_grace_seconds

    async def _delete_instance(self, request: PeriodicRequest, instance: Instance) -> bool:
        """Deletes an orphan; False if that failed, so that it does not count for the limit."""
        if self._deps.settings.gc_dry_run:
            request.log.warning("orphan found, not deleted (dry run)", instance=instance.name)
            return False
        try:
            await self._deps.cloud.delete(instance.name)
        except CloudError as error:
            self._deps.metrics.rejected_deletions.labels(describe(error, 1, self._deps.settings).reason).inc()
            request.log.warning("orphan deletion rejected", instance=instance.name, error=str(error))
            return False
        request.log.warning("orphan deleted", instance=instance.name, instance_type=instance.instance_type)
        namespace = self._deps.installation.namespace
        if namespace is not None:
            note = f"deleting agent pool {instance.name} of {instance.instance_type}: its claim does not exist"
            request.api.event(namespace, "Warning", reasons.ORPHAN_DELETED, note, action="Collect")
        return True

    async def _collect_claims(self, request: PeriodicRequest, instances: dict[str, Instance]) -> None:
        broken: dict[str, tuple[Claim, str]] = {}
        for kind in self._deps.kinds:
            for claim in await request.api.list(kind):
                defect = await self._defect(request, claim, instances.get(claim.name))
                if defect:
                    broken[claim.uid] = (claim, defect)
        found_twice = [entry for uid, entry in broken.items() if uid in self._broken]
        self._broken = set(broken)
        for claim, defect in found_twice:
            request.api.event(claim, "Warning", reasons.INSTANCE_GONE, f"{defect}: deleting the claim")
            self._deps.metrics.disrupted.labels("garbage_collected", nodepool(claim)).inc()
            try:
                await request.api.delete(claim)
            except (ApiError, TransportError) as error:
                request.log.warning("claim deletion failed, retrying", claim=claim.name, error=str(error))

    async def _defect(self, request: PeriodicRequest, claim: Claim, instance: Instance | None) -> str:
        """Why a registered claim cannot become ready again; empty if it can."""
        registered = claim.condition(claim.stages.registered)
        if claim.deleting or not is_managed(claim) or registered is None or not registered.is_true:
            return ""
        node = next((n for n in await nodes_of(request.api, claim) if n.name == claim.status.node_name), None)
        launched = self._deps.cloud.instance_name(claim.status.provider_id)
        if instance is not None and owns_instance(instance, claim.uid, launched=launched):
            if node is not None:
                return ""
            return f"node {claim.status.node_name} does not exist and its instance cannot register again"
        if node is not None and reports_ready(node):
            return ""  # a Ready node is stronger evidence than a list without its instance
        try:
            present = await self._deps.cloud.get(claim.name)
        except CloudError:
            return ""
        return "" if present is not None else f"agent pool {claim.name} does not exist"
