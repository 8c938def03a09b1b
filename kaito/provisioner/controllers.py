"""Builds the provisioner's controllers: one per kind of claim, one for nodes, and garbage collection."""

from functools import partial

from kaito.api import labels
from kaito.api.karpenter import Claim
from kaito.provisioner.context import Dependencies
from kaito.provisioner.garbage_collection import GarbageCollector
from kaito.provisioner.node_termination import finalize_node, reconcile_node
from kaito.provisioner.nodes import MANAGED_NODE_LABELS, NODES_BY_CLAIM, NODES_BY_CLAIM_NAME, claim_key, is_managed
from kaito.provisioner.reconcile import finalize, reconcile
from kaito.runtime import Cached, Controller, ObjectKey
from kaito.runtime.cache import View
from kaito.runtime.controller import Periodic
from kaito.runtime.handler import Enqueue
from kaito.runtime.kinds import Node
from kaito.runtime.predicate import changed, labeled, matching
from kaito.runtime.source import FunctionSource
from kaito.runtime.workqueue import Backoff

CLAIM_BACKOFF = Backoff(base=1.0, cap=60.0)
"""Karpenter's backoff for claims: most failures last until the API server or the cloud recovers."""

NODE_BACKOFF = Backoff(base=0.1, cap=10.0)


def claims_of_changed_instances(deps: Dependencies) -> FunctionSource:
    """Requeues the claim of an instance whose state changed in the cloud; both have the same name."""

    async def watch(queue: Enqueue, _view: View) -> None:
        await deps.cloud.watch(lambda name: queue.add(ObjectKey("", name)))

    return FunctionSource(watch, name="instances")


def nodes_of_changed_instances(deps: Dependencies) -> FunctionSource:
    """Requeues the nodes of an instance whose state changed in the cloud."""

    async def watch(queue: Enqueue, view: View) -> None:
        def requeue(name: str) -> None:
            for node in view.list(Node, index=NODES_BY_CLAIM_NAME(name)):
                queue.add(node.key)

        await deps.cloud.watch(requeue)

    return FunctionSource(watch, name="instances-of-nodes")


def claim_controller(kind: type[Claim], deps: Dependencies) -> Controller[Claim]:
    """Reconciles the managed claims of one kind; changes of their nodes and instances requeue them."""
    node_changes = changed(
        "labels", "deletionTimestamp", "spec", "status.conditions", "status.capacity", "status.allocatable"
    )
    return (
        Controller(
            kind,
            partial(reconcile, deps=deps),
            workers=deps.settings.concurrency,
            backoff=CLAIM_BACKOFF,
            when=matching(is_managed) & (changed("generation", "deletionTimestamp") | matching(_has_retry_annotation)),
        )
        .receives(claims_of_changed_instances(deps))
        .watches(Node, to=claim_key, when=labeled(MANAGED_NODE_LABELS | {labels.CLAIM_KIND: kind.kind}) & node_changes)
        .finalizes(labels.TERMINATION_FINALIZER, partial(finalize, deps=deps))
    )


def _has_retry_annotation(claim: Claim) -> bool:
    return labels.RETRY_LAUNCH in claim.annotations


def node_controller(deps: Dependencies) -> Controller[Node]:
    """Drains the nodes of our instances before they are deleted; registration adds the finalizer."""
    return (
        Controller(
            Node,
            partial(reconcile_node, deps=deps),
            name="node-termination",
            workers=deps.settings.concurrency,
            backoff=NODE_BACKOFF,
            when=labeled(MANAGED_NODE_LABELS) & changed("deletionTimestamp", "finalizers"),
        )
        .receives(nodes_of_changed_instances(deps))
        .finalizes(labels.TERMINATION_FINALIZER, partial(finalize_node, deps=deps))
    )


def controllers(deps: Dependencies) -> list[Controller[Claim] | Controller[Node] | Periodic]:
    """All controllers of the provisioner."""
    collector = GarbageCollector(deps)
    collection = Controller.every(deps.settings.gc_interval_seconds, collector.collect, name="garbage-collection")
    return [*(claim_controller(kind, deps) for kind in deps.kinds), node_controller(deps), collection]


def cached() -> list[Cached]:
    """Cache options: only nodes of our instances are cached."""
    return [Cached(Node, labels=MANAGED_NODE_LABELS, indexes=[NODES_BY_CLAIM, NODES_BY_CLAIM_NAME])]
