"""The provisioner's controllers: one for each kind of claim, one for the nodes, a periodic one for the rest."""

from functools import partial

from kaito.api import labels
from kaito.api.karpenter import Claim
from kaito.provisioner.collect import Collector
from kaito.provisioner.context import Tools
from kaito.provisioner.nodes import NODES_BY_CLAIM, NODES_BY_CLAIM_NAME, OURS, claim_key, is_managed
from kaito.provisioner.reconcile import converge, let_go
from kaito.provisioner.termination import observe, terminate
from kaito.runtime import Cached, Controller, ObjectKey
from kaito.runtime.cache import View
from kaito.runtime.controller import Periodic
from kaito.runtime.handler import Enqueue
from kaito.runtime.kinds import Node
from kaito.runtime.predicate import changed, labeled, matching
from kaito.runtime.source import FunctionSource
from kaito.runtime.workqueue import Backoff

CLAIM_BACKOFF = Backoff(base=1.0, cap=60.0)
"""Karpenter's for claims: what fails here usually needs the API server or the cloud to recover."""

NODE_BACKOFF = Backoff(base=0.1, cap=10.0)


def claims_of_changed_instances(tools: Tools) -> FunctionSource:
    """Wakes the claim of an instance whose state has changed in the cloud; it has the instance's name."""

    async def follow(queue: Enqueue, _view: View) -> None:
        await tools.cloud.follow(lambda name: queue.add(ObjectKey("", name)))

    return FunctionSource(follow, name="instances")


def nodes_of_changed_instances(tools: Tools) -> FunctionSource:
    """Wakes the nodes of an instance whose state has changed in the cloud."""

    async def follow(queue: Enqueue, view: View) -> None:
        def wake(name: str) -> None:
            for node in view.list(Node, index=NODES_BY_CLAIM_NAME(name)):
                queue.add(node.key)

        await tools.cloud.follow(wake)

    return FunctionSource(follow, name="instances-of-nodes")


def claim_controller(kind: type[Claim], tools: Tools) -> Controller[Claim]:
    """Claims of one kind that ask for us; a change of their node wakes them."""
    node_changes = changed(
        "labels", "deletionTimestamp", "spec", "status.conditions", "status.capacity", "status.allocatable"
    )
    return (
        Controller(
            kind,
            partial(converge, tools=tools),
            workers=tools.settings.workers,
            backoff=CLAIM_BACKOFF,
            when=matching(is_managed) & (changed("generation", "deletionTimestamp") | matching(_asks_for_retry)),
        )
        .receives(claims_of_changed_instances(tools))
        .watches(Node, to=claim_key, when=labeled(OURS | {labels.CLAIM_KIND: kind.kind}) & node_changes)
        .finalizes(labels.TERMINATION_FINALIZER, partial(let_go, tools=tools))
    )


def _asks_for_retry(claim: Claim) -> bool:
    return labels.RETRY_LAUNCH in claim.annotations


def node_controller(tools: Tools) -> Controller[Node]:
    """Nodes of our instances: they get our finalizer when they join, and are drained before they go."""
    return (
        Controller(
            Node,
            partial(observe, tools=tools),
            name="node-termination",
            workers=tools.settings.workers,
            backoff=NODE_BACKOFF,
            when=labeled(OURS) & changed("deletionTimestamp", "finalizers"),
        )
        .receives(nodes_of_changed_instances(tools))
        .finalizes(labels.TERMINATION_FINALIZER, partial(terminate, tools=tools))
    )


def controllers(tools: Tools) -> list[Controller[Claim] | Controller[Node] | Periodic]:
    """All of them."""
    scan = Controller.every(tools.settings.collect_every, Collector(tools).scan, name="garbage-collection")
    return [*(claim_controller(kind, tools) for kind in tools.kinds), node_controller(tools), scan]


def cached() -> list[Cached]:
    """Only the nodes we made are kept in memory."""
    return [Cached(Node, labels=OURS, indexes=[NODES_BY_CLAIM, NODES_BY_CLAIM_NAME])]
