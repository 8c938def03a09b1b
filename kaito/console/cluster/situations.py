"""Reads the objects of one Workspace from the informers, for `kaito.diagnosis`."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final, TypeVar, final

from kaito.api import Claim, Machine, NodeClaim, Workspace
from kaito.console.cluster.kinds import EVENTS, OPTIONAL_KINDS, UNREAD_NAMES, regarding
from kaito.diagnosis import Situation
from kaito.runtime.cache import Cache
from kaito.runtime.client import IndexKey
from kaito.runtime.kinds import Deployment, Event, Job, Namespace, Node, Pod, Service, StatefulSet
from kaito.runtime.meta import ObjectKey, Resource
from kaito.workspace.indexes import NODES, PODS, claims_of
from kaito.workspace.manifests.group import workers_name
from kaito.workspace.ownership import is_controller_of, owns_claim
from kaito.workspace.settings import WorkspaceSettings

R = TypeVar("R", bound=Resource)

MAX_EVENTS: Final = 200
"""Events of one Workspace that a diagnosis reads; the newest of each object come from the API server itself."""


@final
class Situations:
    """Reads situations from a cache.

    Args:
        cache: the informers.
        settings: returns the settings of the controller in the cluster, for its timeouts.
    """

    def __init__(self, cache: Cache, settings: Callable[[], WorkspaceSettings] = WorkspaceSettings) -> None:
        self._cache = cache
        self._settings = settings

    def find(self, key: ObjectKey) -> Workspace | None:
        """Returns a Workspace; None if the informer does not have it."""
        if not self._cache.informer(Workspace).synced:
            return None
        return self._cache.get(Workspace, key)

    def read(self, workspace: Workspace, now: datetime, hidden: Mapping[str, str] | None = None) -> Situation:
        """Returns everything that is known about a Workspace.

        Args:
            workspace: the Workspace.
            now: the current time.
            hidden: what the user may not read, by the names that a diagnosis uses, each with the reason.
        """
        unread = {**self._unsynced(), **(hidden or {})}
        key, value = workspace.key, str(workspace.key)
        claims = [] if "claims" in unread else self._claims(workspace)
        nodes = [] if "nodes" in unread else self._nodes(workspace, claims)
        sets: list[StatefulSet] = []
        job: Job | None = None
        if "workloads" not in unread:
            names = (workspace.name, workers_name(workspace))
            found = [self._find(StatefulSet, ObjectKey(key.namespace, name)) for name in names]
            sets = [each for each in found if each is not None and is_controller_of(workspace, each)]
            job = self._find(Job, key) if workspace.tuning is not None else None
        pods = [] if "pods" in unread else self._list(Pod, PODS(value))
        is_served = workspace.inference is not None and "services" not in unread
        service = self._find(Service, key) if is_served else None
        services = [service] if service is not None else []
        objects: list[Resource] = [workspace, *claims, *nodes, *sets, *([job] if job else []), *pods, *services]
        return Situation(
            now=now,
            workspace=workspace,
            claims=claims,
            nodes=nodes,
            stateful_sets=sets,
            job=job,
            pods=pods,
            services=services,
            events=[] if "events" in unread else self._events(objects),
            namespace=None if "namespace" in unread else self._find(Namespace, ObjectKey("", key.namespace)),
            controllers=[] if "controllers" in unread else self._cache.list(Deployment),
            settings=self._settings(),
            unread=unread,
        )

    def started(self, namespace: str, model: str, instance_type: str) -> tuple[Sequence[Claim], Sequence[Pod]]:
        """Returns the claims of an instance type, and the pods of a namespace that serve a model."""
        kinds = [kind for kind in (Machine, NodeClaim) if self._cache.informer(kind).synced]
        claims = [claim for kind in kinds for claim in self._cache.list(kind) if claim.instance_type == instance_type]
        is_synced = self._cache.informer(Workspace).synced
        same = [
            workspace.key
            for workspace in (self._cache.list(Workspace, namespace=namespace) if is_synced else ())
            if workspace.inference is not None and workspace.preset_name == model
        ]
        return claims, [pod for key in same for pod in self._list(Pod, PODS(str(key)))]

    def _claims(self, workspace: Workspace) -> list[Claim]:
        found: list[Claim] = []
        for kind in (Machine, NodeClaim):
            if self._cache.informer(kind).synced:
                found += self._cache.list(kind, index=claims_of(kind, workspace.key))
        return sorted((claim for claim in found if owns_claim(workspace, claim)), key=lambda claim: claim.name)

    def _nodes(self, workspace: Workspace, claims: Sequence[Claim]) -> list[Node]:
        """Returns the nodes with the owner's labels, and those that claims and the status name."""
        found = {node.name: node for node in self._list(Node, NODES(str(workspace.key)))}
        named = {claim.status.node_name for claim in claims} | set(workspace.status.worker_nodes)
        for name in named - found.keys() - {""}:
            node = self._find(Node, ObjectKey("", name))
            if node is not None:
                found[name] = node
        return [found[name] for name in sorted(found)]

    def _events(self, objects: Sequence[Resource]) -> list[Event]:
        values = {regarding(obj.kind, obj.namespace, obj.name) for obj in objects}
        return self._list(Event, EVENTS(*sorted(values)))[:MAX_EVENTS]

    def _find(self, kind: type[R], key: ObjectKey) -> R | None:
        return self._cache.get(kind, key) if self._cache.informer(kind).synced else None

    def _list(self, kind: type[R], index: IndexKey[R]) -> list[R]:
        return list(self._cache.list(kind, index=index)) if self._cache.informer(kind).synced else []

    def _unsynced(self) -> dict[str, str]:
        """Returns the kinds without a first list; kinds that the cluster does not serve are not needed."""
        found: dict[str, str] = {}
        for kind, name in UNREAD_NAMES.items():
            informer = self._cache.informer(kind)
            if informer.synced:
                continue
            error = next((row.error for row in informer.health() if row.error), "")
            if kind in OPTIONAL_KINDS and is_not_served(error):
                continue
            found[name] = error or "the first list has not arrived"
        return found


def is_not_served(error: str) -> bool:
    """Whether the error of an informer reports that the cluster does not serve the kind."""
    return "CustomResourceDefinition" in error or "could not find the requested resource" in error
