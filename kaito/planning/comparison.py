"""Compares a plan with a cluster: reads what exists, and lets the API server compute what an apply would change.

Writes are dry runs. Reads and dry runs that the user's permissions do not allow are left out and reported.
"""

import difflib
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast, final

from kaito.api import Claim, Workspace, conditions, labels
from kaito.api.json_values import without_nulls
from kaito.api.karpenter import NodePool
from kaito.planning.documents import to_yaml
from kaito.runtime.cache import Cache
from kaito.runtime.client import Api, Client, connect
from kaito.runtime.errors import BadRequest, Forbidden, Invalid, NotFound
from kaito.runtime.kinds import (
    ConfigMap,
    Job,
    Namespace,
    Node,
    PersistentVolumeClaim,
    Secret,
    Service,
    ServiceAccount,
    StatefulSet,
)
from kaito.runtime.meta import Resource
from kaito.runtime.ownership import controlled_by
from kaito.workspace.budget import BudgetText
from kaito.workspace.hub.reader import ModelReader
from kaito.workspace.hub.reads import ModelReads
from kaito.workspace.main import FIELD_MANAGER
from kaito.workspace.manifests.claim import claim_kind
from kaito.workspace.manifests.node_pool import node_pool_name
from kaito.workspace.ownership import (
    is_controller_of,
    is_node_of,
    name_conflict_message,
    owner_labels,
    owns_claim,
    owns_pool,
)
from kaito.workspace.preflight import Finding
from kaito.workspace.preflight.live import ClusterFacts, LiveCluster
from kaito.workspace.preview import Observed, ObservedBudget, Preview
from kaito.workspace.settings import NodeApi, WorkspaceSettings

Action = Literal["create", "update", "unchanged", "replace", "delete", "conflict", "unknown"]

CONTROLLER: Final = f"{FIELD_MANAGER}/workspace"
"""Field manager of the controller `workspace`. A dry run under this name removes the fields that a real apply would."""

_SERVER_FIELDS: Final = (
    "managedFields",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "uid",
    "selfLink",
)
"""Fields of `metadata` that the API server sets."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What the controller would do with one object."""

    action: Action
    object: Resource
    diff: str = ""
    """Unified diff of an update in YAML."""
    note: str = ""


@final
class LiveComparison:
    """Reads one cluster for plans."""

    def __init__(self, client: Client, settings: WorkspaceSettings) -> None:
        self._settings = settings
        self._client = client.managed_by(CONTROLLER)
        kind = claim_kind(settings.node_api)
        kinds: list[type[Resource]] = [Workspace, StatefulSet, Job, Service, ConfigMap, Node]
        kinds += [Secret, PersistentVolumeClaim, ServiceAccount, *([kind] if kind is not None else [])]
        # A cache that declares no kind: every read requests the server.
        self._api = Api(self._client, Cache(client.transport), live=kinds)
        self._facts = ClusterFacts(settings.namespace)
        self.notes: list[str] = []
        """What the user's permissions do not allow."""
        self.region = ""
        """Region of the cluster's nodes; empty if they have none, or several."""

    async def stored(self, workspace: Workspace) -> Workspace | None:
        """Returns the Workspace as the cluster has it.

        Raises:
            ApiError: the cluster cannot be read.
        """
        try:
            return await self._client.find(Workspace, workspace.name, workspace.namespace)
        except NotFound:
            return None  # the kind is not installed

    async def admission_error(self, workspace: Workspace, old: Workspace | None) -> Finding | None:
        """Sends the Workspace as a server-side dry run: the CRD's schema and rules, webhooks and policies.

        Returns why the API server rejects it; None if it accepts it, or the user may not send it.

        Raises:
            ApiError: the API server failed.
        """
        client = self._client.dry_run(field_validation="Strict")
        try:
            if old is None:
                await client.create(workspace.with_metadata(uid=""))
            else:
                await client.update(workspace)
        except (Invalid, BadRequest) as error:
            return Finding(conditions.INVALID_SPEC, "Workspace", f"the API server rejects it: {error.message}")
        except Forbidden as error:
            if "admission" in error.message or "denied the request" in error.message:
                return Finding(conditions.INVALID_SPEC, "Workspace", f"the API server rejects it: {error.message}")
            self._note(f"the dry run of the Workspace was not possible: {error.message}")
        except NotFound as error:
            return Finding(conditions.INVALID_SPEC, "Workspace", f"the API server rejects it: {error.message}")
        return None

    def reader(self, workspace: Workspace) -> LiveCluster:
        """Returns the reader of the preflight checks for a Workspace."""
        return LiveCluster(self._api, workspace, self._settings, self._facts, ModelReads(ModelReader("").read))

    async def observe(self, workspace: Workspace) -> Observed:
        """Returns the Workspace's claims and nodes.

        Raises:
            ApiError: the cluster cannot be read.
        """
        try:
            nodes = list(await self._client.list(Node))
        except Forbidden as error:
            self._note(f"nodes were not compared: {error.message}")
            nodes = []
        regions = {node.labels.get(labels.REGION, "") for node in nodes} - {""}
        self.region = regions.pop() if len(regions) == 1 else ""
        names = workspace.resource.preferred_nodes
        if self._settings.node_api is NodeApi.BYO:
            own = [node for node in nodes if workspace.resource.label_selector.matches(node.labels)]
        else:
            own = [node for node in nodes if is_node_of(workspace, node, node_api=self._settings.node_api)]
        return Observed(
            claims=await self._claims(workspace),
            nodes=own,
            preferred=[node for node in nodes if node.name in names],
            pool=await self._pool(workspace),
            budget=await self._budget(workspace),
        )

    async def _budget(self, workspace: Workspace) -> ObservedBudget | None:
        """Returns the budget of the namespace; None if it has none, or the user may not read it."""
        kind = claim_kind(self._settings.node_api)
        if kind is None:
            return None
        try:
            namespace = await self._client.get(Namespace, workspace.namespace)
            stated = BudgetText.of(namespace)
            if stated is None:
                return None
            workspaces = await self._client.list(Workspace, namespace=workspace.namespace)
            claims = await self._client.list(kind, labels={labels.WORKSPACE_NAMESPACE: workspace.namespace})
        except Forbidden as error:
            self._note(f"the budget of the namespace was not compared: {error.message}")
            return None
        except NotFound:
            return None  # the namespace does not exist yet, or the cluster does not serve the claims
        others = [other for other in workspaces if other.name != workspace.name]
        return ObservedBudget(stated=stated, others=others, claims=claims)

    async def _pool(self, workspace: Workspace) -> NodePool | None:
        """Returns the NodePool of the Workspace; None if it does not exist, or the user may not read it."""
        if self._settings.node_api is not NodeApi.KARPENTER:
            return None
        try:
            found = await self._client.find(NodePool, node_pool_name(workspace))
        except (Forbidden, NotFound):
            return None  # `changes` reports the cause
        return found if found is not None and not found.deleting and owns_pool(workspace, found) else None

    async def _claims(self, workspace: Workspace) -> Sequence[Claim]:
        kind = claim_kind(self._settings.node_api)
        if kind is None:
            return ()
        try:
            found = await self._client.list(kind, labels=owner_labels(workspace))
        except Forbidden as error:
            self._note(f"claims were not compared: {error.message}")
            return ()
        except NotFound:
            self._note(f"the cluster does not serve {kind.kind} ({kind.api_version}): install its CRD")
            return ()
        return [claim for claim in found if owns_claim(workspace, claim)]

    async def changes(self, found: Preview, old: Workspace | None) -> list[Change]:
        """Returns what would change, the Workspace included.

        Raises:
            ApiError: the cluster cannot be read.
        """
        workspace = found.workspace
        changes = [_workspace_change(workspace, old)]
        changes += [Change(action="create", object=claim) for claim in found.objects.claims]
        changes += [Change(action="delete", object=claim, note=why) for claim, why in found.decision.delete]
        if found.objects.pool is not None:
            changes.append(await self._pool_change(found.objects.pool, workspace))
        applied = (*found.objects.services, found.objects.configuration, found.objects.workload)
        return [*changes, *[await self._change(each, workspace) for each in applied if each is not None]]

    async def _change(self, wanted: Resource, workspace: Workspace) -> Change:
        try:
            present = await self._client.find(type(wanted), wanted.name, wanted.namespace)
        except Forbidden as error:
            self._note(f"{wanted.kind} {wanted.name} was not compared: {error.message}")
            return Change(action="unknown", object=wanted, note="not compared with the cluster")
        if present is None:
            return Change(action="create", object=wanted)
        if not is_controller_of(workspace, present):
            return Change(action="conflict", object=wanted, note=name_conflict_message(present))
        if isinstance(wanted, Job):
            return _job_change(wanted, present)
        return await self._applied(wanted, controlled_by(wanted, workspace), present)

    async def _pool_change(self, wanted: NodePool, workspace: Workspace) -> Change:
        """Compares the NodePool, which belongs to the Workspace by its labels."""
        try:
            present = await self._client.find(NodePool, wanted.name)
        except Forbidden as error:
            self._note(f"NodePool {wanted.name} was not compared: {error.message}")
            return Change(action="unknown", object=wanted, note="not compared with the cluster")
        except NotFound:
            self._note("the cluster does not serve NodePool (karpenter.sh/v1): install Karpenter")
            return Change(action="create", object=wanted)
        if present is None or not owns_pool(workspace, present):
            return Change(action="create", object=wanted)
        return await self._applied(wanted, wanted, present)

    async def _applied(self, wanted: Resource, owned: Resource, present: Resource) -> Change:
        try:
            applied = await self._client.dry_run().apply(owned)
        except Forbidden as error:
            self._note(f"the dry run of {wanted.kind} {wanted.name} was not possible: {error.message}")
            return Change(action="unknown", object=wanted, note="exists, not compared with the cluster")
        diff = _diff(present, applied)
        return Change(action="update" if diff else "unchanged", object=wanted, diff=diff)

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def connected(kubeconfig: Path | None, context: str) -> AbstractAsyncContextManager[Client]:
    """Connects to the cluster of a kubeconfig."""
    return connect(kubeconfig, context=context, field_manager=CONTROLLER, user_agent="kaito-plan")


def merged(given: Workspace, old: Workspace) -> Workspace:
    """Returns the stored Workspace with the spec, labels and annotations of a file, as an apply would leave it.

    Labels and annotations that the file does not contain stay: most are those of other programs.
    """
    return given.evolve(
        status=old.status,
        metadata=old.metadata.evolve(
            labels={**old.labels, **given.labels}, annotations={**old.annotations, **given.annotations}
        ),
    )


def _workspace_change(workspace: Workspace, old: Workspace | None) -> Change:
    if old is None:
        return Change(action="create", object=workspace)
    diff = _diff(_with_defaults(old), _with_defaults(workspace))
    return Change(action="update" if diff else "unchanged", object=workspace, diff=diff)


def _with_defaults(workspace: Workspace) -> Workspace:
    """Returns the Workspace with the defaults of all fields set, as the API server stores it, without empty ones."""
    document: dict[str, Any] = without_nulls(workspace.model_dump(by_alias=True, mode="json"))
    kept: dict[str, Any] = _without_empty(document)
    selector = {"labelSelector": document["resource"]["labelSelector"]}
    return Workspace.model_validate({**kept, "resource": {**selector, **kept.get("resource", {})}})


def _without_empty(value: Any) -> Any:
    """Returns a JSON value without empty objects, lists and texts, which are the same as absent fields."""
    if not isinstance(value, dict):
        return value
    members = {name: _without_empty(member) for name, member in cast("dict[str, Any]", value).items()}
    return {name: member for name, member in members.items() if member not in ({}, [], "")}


def _job_change(wanted: Job, present: Resource) -> Change:
    """Compares the digests of the inputs, as the controller does: the template of a Job is immutable."""
    recorded = present.annotations.get(labels.INPUTS_HASH)
    if recorded is None or recorded == wanted.annotations.get(labels.INPUTS_HASH):
        return Change(action="unchanged", object=wanted)
    return Change(action="replace", object=wanted, note="its inputs changed: the Job is deleted and created again")


def bare(obj: Resource) -> dict[str, Any]:
    """Returns an object without status and the fields that the API server sets."""
    document = obj.to_dict()
    document.pop("status", None)
    metadata: dict[str, Any] = dict(document.get("metadata") or {})
    document["metadata"] = {name: value for name, value in metadata.items() if name not in _SERVER_FIELDS}
    return document


def _diff(before: Resource, after: Resource) -> str:
    """Returns the unified diff of two objects, without the controller's record of what it has applied."""
    old, new = (to_yaml(_without_record(bare(obj))).splitlines() for obj in (before, after))
    return "\n".join(difflib.unified_diff(old, new, fromfile="cluster", tofile="planned", lineterm="", n=2))


def _without_record(document: dict[str, Any]) -> dict[str, Any]:
    metadata: dict[str, Any] = document["metadata"]
    annotations = {name: text for name, text in metadata.get("annotations", {}).items() if name != labels.APPLIED}
    rest = {name: value for name, value in metadata.items() if name != "annotations"}
    return {**document, "metadata": {**rest, **({"annotations": annotations} if annotations else {})}}
