"""Copies what a ConfigDistribution selects, repairs the copies, and deletes them with it."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from kaito.runtime import Again, Controller, ObjectKey, ObjectMeta, Request, View, changed
from kaito.runtime.clusters import ClusterKey, ClusterRequest, ClusterSet, Member, same_object
from kaito.runtime.kinds import ConfigMap, Secret
from kaito.runtime.predicate import on
from kaito.runtime.source import EventType
from kaito.runtime.workqueue import Backoff

from config_distributor.api import ClusterCopies, ConfigDistribution

Config: TypeAlias = ConfigMap | Secret
KINDS: tuple[type[Config], ...] = (ConfigMap, Secret)
COPY = {"config.example.com/copy": "true"}
"""Label of copies."""
DISTRIBUTION = "config.example.com/distribution"
"""Annotation of copies: the name of their ConfigDistribution, which is in the namespace of the same name at home."""


class Distributor:
    """The controllers of ConfigDistributions and of their copies."""

    def __init__(self, clusters: ClusterSet) -> None:
        self.clusters = clusters

    def controllers(self) -> list[Any]:
        """Returns the declarations for the manager."""
        main = Controller(ConfigDistribution, self.reconcile, workers=4, when=changed("generation"))
        for kind in KINDS:
            main.watches(kind, to=selecting)
            main.watches(kind, to=distribution_of, labels=COPY, cluster=self.clusters)
        main.receives(self.clusters.changes(ConfigDistribution))
        main.finalizes("config.example.com/copies", self.clean_up)
        return [main, *(self.orphans(kind) for kind in KINDS)]

    def orphans(self, kind: type[Config]) -> Any:
        """Returns the controller of the copies of one kind in all clusters."""

        def copies_of(distribution: ConfigDistribution, _: View) -> list[ClusterKey]:
            namespace, views = distribution.namespace, self.clusters.views()
            return [same_object(copy, view) for view in views for copy in view.list(kind, namespace=namespace)]

        controller = self.clusters.controller(kind, delete_orphan, labels=COPY, backoff=Backoff(cap=60))
        return controller.watches(ConfigDistribution, to=copies_of, when=on(EventType.DELETE))

    async def reconcile(self, request: Request[ConfigDistribution]) -> None:
        """Makes the copies current in every selected cluster, and deletes those in all others."""
        spec, originals = request.object.spec, await selected_by(request)
        chosen = {member.name for member in self.clusters.list(spec.clusters)}
        outcomes = await self.clusters.each(
            lambda member: make_current(request.object, member, originals if member.name in chosen else [])
        )
        copies = [
            ClusterCopies(name=name, copies=outcomes.results.get(name, 0), problem=str(outcomes.errors.get(name, "")))
            for name in sorted(chosen)
        ]
        failed = [each.name for each in copies if each.problem]
        message = (
            f"not current in {', '.join(failed)}" if failed else f"{len(originals)} objects in {len(copies)} clusters"
        )
        async with request.status() as status:
            status.set(clusters=copies)
            status.condition("Ready", not failed, "Incomplete" if failed else "Current", message)
        if failed:
            request.requeue_after(60, message)  # a cluster that becomes reachable triggers a reconcile at once

    async def clean_up(self, request: Request[ConfigDistribution]) -> Again | None:
        """Deletes all copies. Clusters that were removed do not count, unreachable ones only for some time."""
        outcomes = await self.clusters.each(lambda member: make_current(request.object, member, []))
        deleted_at = request.object.metadata.deletion_timestamp or request.clock.now()
        waited = (request.clock.now() - deleted_at).total_seconds()
        if outcomes.errors and waited < request.object.spec.cleanup_timeout_seconds:
            return Again(10, f"copies are left in {', '.join(outcomes.errors)}")
        for name, error in outcomes.errors.items():
            request.event("Warning", "CopiesLeft", f"copies in {name} are deleted when it can be reached: {error}")
        return None


async def selected_by(request: Request[ConfigDistribution]) -> list[Config]:
    """Returns the ConfigMaps and Secrets to copy."""
    selector, namespace = request.object.spec.selector, request.key.namespace
    return [obj for kind in KINDS for obj in await request.api.list(kind, namespace=namespace, labels=selector)]


async def make_current(distribution: ConfigDistribution, member: Member, originals: Sequence[Config]) -> int:
    """Makes the copies of a distribution in one cluster those of `originals`; returns their number."""
    api, wanted = member.api, {(type(each), each.key) for each in originals}
    for original in originals:
        kind: type[Config] = type(original)
        present = await api.find(kind, original.name, original.namespace)
        if present is None:  # the cache has copies only: look whether there is a foreign object
            present = await api.find(kind, original.name, original.namespace, consistency="live")
        if present is not None and present.annotations.get(DISTRIBUTION) != distribution.name:
            raise ValueError(f"{kind.kind} {original.key} exists and is not a copy of this distribution")
        metadata = ObjectMeta(
            name=original.name,
            namespace=original.namespace,
            labels={**original.labels, **COPY},
            annotations={DISTRIBUTION: distribution.name},
        )
        await api.ensure(original.evolve(metadata=metadata))
    for kind in KINDS:
        for copy in await api.list(kind, namespace=distribution.namespace, labels=COPY):
            if copy.annotations.get(DISTRIBUTION) == distribution.name and (kind, copy.key) not in wanted:
                await api.delete(copy)
    return len(originals)


async def delete_orphan(request: ClusterRequest[Any]) -> None:
    """Deletes a copy whose distribution was deleted while its cluster could not be reached."""
    name = request.object.annotations.get(DISTRIBUTION, "")
    if await request.api.find(ConfigDistribution, name, request.key.namespace) is None:
        await request.cluster.api.delete(request.object)


def selecting(obj: Config, view: View) -> list[ObjectKey]:
    """Returns the keys of the distributions that select an object."""
    distributions = view.list(ConfigDistribution, namespace=obj.namespace)
    return [each.key for each in distributions if each.spec.selector.matches(obj.labels)]


def distribution_of(copy: Config, view: View) -> ObjectKey | None:
    """Returns the key of a copy's distribution, which is at home."""
    name = copy.annotations.get(DISTRIBUTION, "")
    found = view.home.find(ConfigDistribution, name, copy.namespace)
    return found.key if found is not None else None
