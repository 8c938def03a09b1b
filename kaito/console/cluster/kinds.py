"""Declares the kinds that the console keeps in memory, and which Workspace an object concerns."""

from collections.abc import Iterable, Sequence
from typing import Final

from kaito.api import Machine, NodeClaim, Workspace, labels
from kaito.diagnosis import CONTROLLERS
from kaito.runtime.cache import Cache, Cached, Header, Index
from kaito.runtime.kinds import Deployment, Event, Job, Namespace, Node, Pod, Service, StatefulSet
from kaito.runtime.meta import ObjectKey, Resource
from kaito.workspace.indexes import MACHINES, NODE_CLAIMS, NODES, PODS

OPTIONAL_KINDS: Final = frozenset({Machine, NodeClaim})
"""Kinds that a cluster may lack. Workspaces are served by every cluster with Kaito."""

UNREAD_NAMES: Final[dict[type[Resource], str]] = {
    Machine: "claims",
    NodeClaim: "claims",
    Node: "nodes",
    Pod: "pods",
    StatefulSet: "workloads",
    Job: "workloads",
    Service: "services",
    Event: "events",
    Namespace: "namespace",
    Deployment: "controllers",
}
"""Names under which a diagnosis reports kinds that could not be read."""


def regarding(kind: str, namespace: str, name: str) -> str:
    """Returns the index value of the Events about an object."""
    return f"{kind}/{namespace}/{name}"


def _by_regarding(event: Event) -> Sequence[str]:
    about = event.regarding
    return [regarding(about.kind or "", about.namespace or "", about.name or "")]


def _by_node(workspace: Workspace) -> Sequence[str]:
    return workspace.status.worker_nodes


EVENTS: Final = Index(Event, _by_regarding, name="regarding")
WORKSPACES_BY_NODE: Final = Index(Workspace, _by_node, name="node")


def cached_kinds() -> list[Cached]:
    """Returns the declarations of the cache."""
    return [
        Cached(Workspace, indexes=[WORKSPACES_BY_NODE]),
        Cached(Machine, indexes=[MACHINES]),
        Cached(NodeClaim, indexes=[NODE_CLAIMS]),
        Cached(Node, indexes=[NODES], drop=("metadata.managedFields", "status.images")),
        Cached(Pod, labels=labels.WORKSPACE, indexes=[PODS]),
        Cached(StatefulSet),
        Cached(Job),
        Cached(Service),
        Cached(Event, indexes=[EVENTS]),
        Cached(Namespace),
        Cached(Deployment, labels=CONTROLLERS),
    ]


def concerned(cache: Cache, kind: type[Resource], header: Header) -> Iterable[ObjectKey]:
    """Returns the Workspaces whose rows an object of a kind may change; Events are resolved by `concerned_by`."""
    key = header.key
    if kind is Workspace:
        return [key]
    name = header.labels.get(labels.WORKSPACE, "")
    if kind in {Pod, StatefulSet, Job, Service}:
        owner = name or next((owner.name for owner in header.owners if owner.kind == Workspace.kind), "")
        return [ObjectKey(key.namespace, owner or key.name)]
    namespace = header.labels.get(labels.WORKSPACE_NAMESPACE, "")
    if name and namespace:
        return [ObjectKey(namespace, name)]
    if kind is Node and cache.informer(Workspace).synced:
        return [workspace.key for workspace in cache.list(Workspace, index=WORKSPACES_BY_NODE(key.name))]
    return []


def concerned_by(cache: Cache, event: Event) -> Iterable[ObjectKey]:
    """Returns the Workspaces that an Event concerns, from the object that it is about."""
    about = event.regarding
    name, namespace = about.name or "", about.namespace or ""
    if about.kind == Workspace.kind:
        return [ObjectKey(namespace, name)]
    by_name: dict[str, type[Resource]] = {
        kind.kind: kind for kind in (Machine, NodeClaim, Node, Pod, StatefulSet, Job, Service)
    }
    kind = by_name.get(about.kind or "")
    if kind is None or not cache.informer(kind).synced:
        return []
    entry = cache.informer(kind).get(ObjectKey(namespace if kind.namespaced else "", name))
    return concerned(cache, kind, entry.header) if entry is not None else []
