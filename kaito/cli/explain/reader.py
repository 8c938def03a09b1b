"""Reads the objects of one Workspace from a cluster.

What the user's permissions do not allow, and kinds that the cluster does not serve, are left out and recorded.
"""

import asyncio
import difflib
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar, final

from kaito.api import (
    Claim,
    InferenceSet,
    Machine,
    NodeClaim,
    Workspace,
    WorkspaceV1Alpha1,
    conditions,
    labels,
)
from kaito.diagnosis import CONTROLLERS, Situation
from kaito.planning.documents import InputError
from kaito.planning.installed import installed_settings
from kaito.runtime.client import Client
from kaito.runtime.errors import Forbidden, KaitoRuntimeError, NotFound
from kaito.runtime.kinds import Deployment, Event, Job, Namespace, Node, Pod, Service, StatefulSet
from kaito.runtime.meta import Resource, find_condition
from kaito.workspace.events import CLUSTER_SCOPED_NAMESPACE
from kaito.workspace.manifests.group import workers_name
from kaito.workspace.ownership import is_controller_of, owner_labels, owns_claim, pod_labels
from kaito.workspace.settings import WorkspaceSettings

T = TypeVar("T")
R = TypeVar("R", bound=Resource)

SYSTEM_NAMESPACE: Final = "kaito-system"

_SET_KINDS: Final = frozenset({"inferenceset", "inferencesets", "is"})

MAX_OBJECTS_WITH_EVENTS: Final = 24
"""Objects whose Events are read; those that are not ready come first."""

MAX_WORKSPACES: Final = 3
"""Workspaces of a set that are explained."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SetSituation:
    """An InferenceSet and its Workspaces that are not ready."""

    inference_set: InferenceSet
    workspaces: int
    """Number of its Workspaces that exist."""
    waiting: tuple[str, ...]
    """Names of those that are not ready."""
    situations: Sequence[Situation]
    """The first of these."""


class WorkspaceMissing(Exception):
    """The Workspace does not exist; the message names similar ones."""


@final
class SituationReader:
    """Reads one cluster."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._unread: dict[str, str] = {}

    async def read(self, name: str, namespace: str, now: datetime) -> Situation:
        """Returns everything that is known about a Workspace.

        Raises:
            WorkspaceMissing: it does not exist.
            KaitoRuntimeError: the cluster or the Workspace cannot be read.
        """
        self._unread = {}
        workspace = await self._workspace(name, namespace)
        claims, workloads, job, pods, services = await asyncio.gather(
            self._claims(workspace),
            self._stateful_sets(workspace),
            self._job(workspace),
            self._list("pods", Pod, namespace=namespace, labels=pod_labels(workspace)),
            self._services(workspace),
        )
        found, controllers, settings = await asyncio.gather(
            self._tried("namespace", self._client.find(Namespace, namespace), None),
            self._controllers(),
            self._settings(),
        )
        nodes = await self._nodes(workspace, claims)
        events = await self._events([workspace, *claims, *nodes, *workloads, *([job] if job else []), *pods, *services])
        return Situation(
            now=now,
            workspace=workspace,
            claims=claims,
            nodes=nodes,
            stateful_sets=workloads,
            job=job,
            pods=sorted(pods, key=lambda pod: pod.name),
            services=services,
            events=events,
            namespace=found,
            controllers=controllers,
            settings=settings,
            unread=dict(self._unread),
        )

    async def read_set(self, name: str, namespace: str, now: datetime) -> SetSituation | None:
        """Returns an InferenceSet and what is known about those of its Workspaces that are not ready; None if there is
        no set of that name.

        Raises:
            KaitoRuntimeError: the cluster or one of the Workspaces cannot be read.
        """
        try:
            found = await self._client.find(InferenceSet, name, namespace)
        except NotFound:
            return None  # the kind is not installed
        if found is None:
            return None
        selector = {labels.CREATED_BY_INFERENCESET: name}
        workspaces = await self._client.list(Workspace, namespace=namespace, labels=selector)
        waiting = [each.name for each in workspaces if not _is_workspace_ready(each)]
        situations = [await self.read(each, namespace, now) for each in waiting[:MAX_WORKSPACES]]
        return SetSituation(
            inference_set=found, workspaces=len(workspaces), waiting=tuple(waiting), situations=situations
        )

    async def _workspace(self, name: str, namespace: str) -> Workspace:
        kind: type[Workspace] = Workspace
        try:
            found = await self._client.find(kind, name, namespace)
        except NotFound:
            kind = WorkspaceV1Alpha1  # an older release of upstream Kaito serves only this version
            try:
                found = await self._client.find(kind, name, namespace)
            except NotFound:
                raise WorkspaceMissing("the cluster has no Workspaces: Kaito is not installed") from None
        if found is None:
            raise WorkspaceMissing(await self._describe_missing(kind, name, namespace))
        return found

    async def _describe_missing(self, kind: type[Workspace], name: str, namespace: str) -> str:
        """Returns a message with similar names in the namespace, else with the namespaces that have the name."""
        text = f"Workspace {namespace}/{name} does not exist"
        known = [each.name for each in await self._list("", kind, namespace=namespace)]
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        if near:
            return f"{text}; did you mean {', '.join(near)}?"
        everywhere = await self._list("", kind)
        elsewhere = sorted(each.namespace for each in everywhere if each.name == name)
        if elsewhere:
            return f"{text}; it exists in the namespace {', '.join(elsewhere[:3])}: use -n"
        if known:
            return f"{text}; the namespace has: {', '.join(sorted(known)[:10])}"
        return f"{text}; the namespace has no Workspaces (another one: -n)"

    async def _claims(self, workspace: Workspace) -> list[Claim]:
        owner = owner_labels(workspace)
        machines, node_claims = await asyncio.gather(
            self._list("claims", Machine, labels=owner), self._list("claims", NodeClaim, labels=owner)
        )
        found: list[Claim] = [*machines, *node_claims]
        return sorted((claim for claim in found if owns_claim(workspace, claim)), key=lambda claim: claim.name)

    async def _nodes(self, workspace: Workspace, claims: Sequence[Claim]) -> list[Node]:
        """Returns the nodes with the owner's labels, and those that claims and the status name."""
        found = {node.name: node for node in await self._list("nodes", Node, labels=owner_labels(workspace))}
        named = {claim.status.node_name for claim in claims} | set(workspace.status.worker_nodes)
        missing = sorted(named - found.keys() - {""})
        if "nodes" not in self._unread:
            others = await asyncio.gather(
                *(self._tried("nodes", self._client.find(Node, name), None) for name in missing)
            )
            found |= {node.name: node for node in others if node is not None}
        return [found[name] for name in sorted(found)]

    async def _stateful_sets(self, workspace: Workspace) -> list[StatefulSet]:
        names = (workspace.name, workers_name(workspace))
        found = await asyncio.gather(
            *(
                self._tried("workloads", self._client.find(StatefulSet, name, workspace.namespace), None)
                for name in names
            )
        )
        return [each for each in found if each is not None and is_controller_of(workspace, each)]

    async def _job(self, workspace: Workspace) -> Job | None:
        if workspace.tuning is None:
            return None
        return await self._tried("workloads", self._client.find(Job, workspace.name, workspace.namespace), None)

    async def _services(self, workspace: Workspace) -> list[Service]:
        if workspace.inference is None:
            return []
        found = await self._tried("services", self._client.find(Service, workspace.name, workspace.namespace), None)
        return [found] if found is not None else []

    async def _controllers(self) -> Sequence[Deployment]:
        """Returns the Deployments of the controllers; only those of their usual namespace if others are forbidden."""
        try:
            return await self._client.list(Deployment, labels=CONTROLLERS)
        except Forbidden:
            return await self._list("controllers", Deployment, namespace=SYSTEM_NAMESPACE, labels=CONTROLLERS)
        except KaitoRuntimeError as error:
            self._unread["controllers"] = str(error)
            return []

    async def _settings(self) -> WorkspaceSettings:
        """Returns the settings of the controller, for its timeouts; the defaults if they cannot be read."""
        try:
            return (await installed_settings(self._client)).invocation.workspace
        except (InputError, KaitoRuntimeError):
            return WorkspaceSettings()

    async def _events(self, objects: Iterable[Resource]) -> list[Event]:
        chosen = sorted(objects, key=_is_fine)[:MAX_OBJECTS_WITH_EVENTS]
        found = await asyncio.gather(*(self._events_of(obj) for obj in chosen))
        return [event for events in found for event in events]

    async def _events_of(self, obj: Resource) -> Sequence[Event]:
        fields = {"regarding.kind": obj.kind, "regarding.name": obj.name}
        namespace = obj.namespace or CLUSTER_SCOPED_NAMESPACE
        return await self._list("events", Event, namespace=namespace, fields=fields)

    async def _list(
        self,
        what: str,
        kind: type[R],
        *,
        namespace: str = "",
        labels: dict[str, str] | str | None = None,
        fields: dict[str, str] | None = None,
    ) -> Sequence[R]:
        nothing: Sequence[R] = ()
        return await self._tried(what, self._listed(kind, namespace, labels, fields), nothing)

    async def _listed(
        self, kind: type[R], namespace: str, labels: dict[str, str] | str | None, fields: dict[str, str] | None
    ) -> Sequence[R]:
        return await self._client.list(kind, namespace=namespace, labels=labels, fields=fields)

    async def _tried(self, what: str, read: Awaitable[T], default: T) -> T:
        """Awaits a read; returns the default if it is forbidden or fails, which is recorded if `what` names it."""
        try:
            return await read
        except NotFound:
            return default  # the cluster does not serve the kind
        except KaitoRuntimeError as error:
            if what:
                self._unread[what] = str(error)
            return default


def _is_workspace_ready(workspace: Workspace) -> bool:
    ready = find_condition(workspace.status.conditions, conditions.WORKSPACE_READY)
    return ready is not None and ready.is_true and not workspace.deleting


def _is_fine(obj: Resource) -> bool:
    """Whether an object is ready, so that its Events matter less."""
    return isinstance(obj, Claim | Pod | Node) and obj.is_ready


def namespace_and_name(workspace: str, namespace: str) -> tuple[str, str, bool]:
    """Splits `NAMESPACE/NAME`, and `workspace/NAME` and `inferenceset/NAME` as kubectl accepts them.

    Returns:
        Namespace, name, and whether the argument names an InferenceSet.

    Raises:
        InputError: the argument names a namespace other than the flag, or another kind.
    """
    first, separator, last = workspace.rpartition("/")
    if last and first.lower() in _SET_KINDS:
        return namespace, last, True
    if not separator or first in {"workspace", "workspaces", "ws"}:
        return namespace, last, False
    if "/" in first or not last:
        raise InputError(f"{workspace!r} is not the name of a Workspace: use NAME, NAMESPACE/NAME or inferenceset/NAME")
    if namespace and namespace != first:
        raise InputError(f"{workspace!r} and -n {namespace} name different namespaces: use one of them")
    return first, last, False
