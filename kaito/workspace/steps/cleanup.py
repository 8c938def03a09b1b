"""Deletes the workload and the claims of a Workspace that is being deleted.

The controller calls `clean_up` instead of the other steps, and removes the finalizer when it returns None. The
condition `WorkspaceDeleting` reports the progress; all other conditions are False from the first reconcile. If claims
still exist after the deletion timeout, a Warning names them and the finalizer is removed, so that a broken provisioner
cannot block the deletion. The orphan collector then deletes the claims.
"""

from collections.abc import Sequence
from typing import Final

from kaito.api import Claim, Machine, NodeClaim, Workspace, conditions, labels
from kaito.api.karpenter.conditions import INSTANCE_TERMINATING
from kaito.runtime import Again, Request
from kaito.runtime.client import ConditionUpdate, MergePatch, StatusScope
from kaito.runtime.errors import NotFound, NotLeader
from kaito.runtime.kinds import Job, Node, StatefulSet
from kaito.workspace.deletions import Deletions
from kaito.workspace.failure import format_error
from kaito.workspace.indexes import NODES, claims_of
from kaito.workspace.manifests.claim import claim_kind
from kaito.workspace.manifests.group import workers_name
from kaito.workspace.manifests.node_pool import is_pool_claim
from kaito.workspace.ownership import is_controller_of, owner_labels, owns_claim
from kaito.workspace.settings import NodeApi, WorkspaceSettings
from kaito.workspace.steps.release import delete_pool
from kaito.workspace.steps.status import MAX_MESSAGE_CHARACTERS, OWNED_CONDITIONS

POOL_RESYNC_SECONDS: Final = 1.0
"""Delay after the deletion of the NodePool."""

_POOL_DELETED: Final = "waiting for the deletion of the NodePool"

RESYNC_SECONDS: Final = 5.0
"""Interval at which a deletion is reconciled without an event while claims exist."""


async def clean_up(request: Request[Workspace], settings: WorkspaceSettings, deletions: Deletions) -> Again | None:
    """Deletes what the Workspace has; returns None when the finalizer can be removed."""
    age = deletions.age_seconds(request.object, request.clock.now())
    is_timed_out = age > settings.deletion_timeout_seconds
    async with request.status() as status:
        _set_not_ready(request, status)
        try:
            again = await _delete_all(request, settings, status, is_timed_out=is_timed_out)
        except NotLeader:
            raise
        except Exception as error:
            _report(request, status, conditions.DELETION_FAILED, format_error(error))
            raise
    if again is None:
        deletions.forget(request.object.uid)
    return again


async def _delete_all(
    request: Request[Workspace], settings: WorkspaceSettings, status: StatusScope[Workspace], *, is_timed_out: bool
) -> Again | None:
    await _delete_workload(request)
    had_pool, remaining = await _delete_claims(request, settings)
    if had_pool and not is_timed_out:
        # Karpenter may create a claim until the pool is deleted: the claims are listed again.
        reason, message = _progress(remaining) if remaining else (conditions.WAITING_FOR_CLAIMS, _POOL_DELETED)
        _report(request, status, reason, message)
        return Again(after=POOL_RESYNC_SECONDS, why=message)
    if remaining and not is_timed_out:
        reason, message = _progress(remaining)
        _report(request, status, reason, message)
        return Again(after=RESYNC_SECONDS, why=message)
    if remaining:
        names = ", ".join(claim.name for claim in remaining)
        waited = f"stopped waiting after {settings.deletion_timeout_seconds:.0f} s"
        note = f"{waited}; these claims may still cost money: {names}"
        request.event("Warning", "DeletionTimedOut", note)
    await _release_preferred_nodes(request)
    await _remove_legacy_finalizer(request)
    return None


def _set_not_ready(request: Request[Workspace], status: StatusScope[Workspace]) -> None:
    """Sets all conditions to False from the first reconcile of a deletion, because the workload is deleted first."""
    workspace = request.object
    workload = conditions.JOB_STARTED if workspace.tuning is not None else conditions.INFERENCE_READY
    columns = {conditions.RESOURCE_READY, workload, conditions.WORKSPACE_SUCCEEDED, conditions.WORKSPACE_READY}
    present = {condition.type for condition in status.conditions} & OWNED_CONDITIONS
    for condition_type in sorted(present | columns):
        update = ConditionUpdate.unknown if condition_type == conditions.MODEL_RESOLVED else ConditionUpdate.false
        status.set_condition(update(condition_type, conditions.DELETING, "the workspace is being deleted"))
    if workspace.tuning is None:
        status.set(state="NotReady")
    elif workspace.status.state == "Running":
        status.set(state="Pending")


def _progress(remaining: Sequence[Claim]) -> tuple[str, str]:
    """Returns reason and message of what the deletion waits for, with the provisioner's message if there is one."""
    names = ", ".join(claim.name for claim in remaining)
    waiting = f"waiting for the deletion of {remaining[0].kind} {names}"
    found = [
        (claim, condition) for claim in remaining if (condition := claim.blocking_termination_condition()) is not None
    ]
    if not found:
        return conditions.WAITING_FOR_CLAIMS, waiting
    rejected = [(c, d) for c, d in found if d.status == "False" and d.type == INSTANCE_TERMINATING]
    claim, condition = (rejected or found)[0]
    reason = conditions.CLOUD_REFUSES_DELETION if rejected else conditions.WAITING_FOR_CLAIMS
    detail = ": ".join(filter(None, (condition.reason, condition.message)))
    return reason, f"{waiting}; {claim.kind} {claim.name}: {detail}"


def _report(request: Request[Workspace], status: StatusScope[Workspace], reason: str, message: str) -> None:
    """Sets WorkspaceDeleting, and records a Warning for a new failure or rejection."""
    before = status.find(conditions.WORKSPACE_DELETING)
    has_changed = before is None or (before.reason, before.message) != (reason, message)
    if has_changed and reason in {conditions.DELETION_FAILED, conditions.CLOUD_REFUSES_DELETION}:
        request.event("Warning", reason, message)
    message = message[:MAX_MESSAGE_CHARACTERS]
    status.set_condition(ConditionUpdate.true(conditions.WORKSPACE_DELETING, reason, message))


async def _delete_workload(request: Request[Workspace]) -> None:
    """Deletes the StatefulSets and the Job, so that pods that are evicted from a draining node are not created again.

    Their pods end while the node drains. To wait for them here would keep the GPUs longer.
    """
    workspace, api = request.object, request.api
    for kind, name in ((StatefulSet, workspace.name), (StatefulSet, workers_name(workspace)), (Job, workspace.name)):
        workload = await api.find(kind, name, workspace.namespace)
        if workload is not None and not workload.deleting and is_controller_of(workspace, workload):
            await api.delete(workload, propagation="Background")


async def _delete_claims(request: Request[Workspace], settings: WorkspaceSettings) -> tuple[bool, Sequence[Claim]]:
    """Deletes the Workspace's NodePool and claims; returns whether the pool existed, and the claims that still exist.

    Includes claims of the kind that is not configured, because `--node-api` may have changed.
    """
    workspace, api = request.object, request.api
    remaining: list[Claim] = []
    uses_pool = settings.node_api is NodeApi.KARPENTER
    had_pool = uses_pool and await delete_pool(api, workspace)
    for kind in (Machine, NodeClaim):
        # When the pool is deleted, the cache may not contain yet the last claim that Karpenter created from it.
        may_use_cache = had_pool or not uses_pool
        if kind is claim_kind(settings.node_api) and may_use_cache:
            found: Sequence[Claim] = await api.list(kind, index=claims_of(kind, workspace.key))
        else:
            found = await _list_claims_live(request, kind)
        own = [claim for claim in found if owns_claim(workspace, claim)]
        if not uses_pool and any(is_pool_claim(workspace, claim) for claim in own):
            had_pool = await delete_pool(api, workspace)  # --node-api was karpenter before
        for claim in own:
            if not claim.deleting:
                await api.delete(claim)
                request.log.info("claim deleted", claim=claim.name)
        remaining.extend(own)
    return had_pool, remaining


async def _list_claims_live(request: Request[Workspace], kind: type[Claim]) -> Sequence[Claim]:
    """Lists claims that the API server has; returns none if the cluster does not serve the kind."""
    try:
        return await request.api.list(kind, labels=owner_labels(request.object), consistency="live", unreadable="fail")
    except NotFound:
        return []


async def _release_preferred_nodes(request: Request[Workspace]) -> None:
    """Removes the Workspace's labels from preferred nodes, so that other Workspaces can use them."""
    owned = (labels.WORKSPACE, labels.WORKSPACE_NAMESPACE, labels.PREFERRED)
    for node in await request.api.list(Node, index=NODES(str(request.object.key))):
        if labels.PREFERRED in node.labels:
            await request.api.patch(node, MergePatch({"metadata": {"labels": dict.fromkeys(owned)}}))


async def _remove_legacy_finalizer(request: Request[Workspace]) -> None:
    """Removes upstream Kaito's finalizer from a Workspace that upstream created: no other controller does."""
    workspace = request.object
    if labels.LEGACY_WORKSPACE_FINALIZER in workspace.metadata.finalizers:
        remaining = [name for name in workspace.metadata.finalizers if name != labels.LEGACY_WORKSPACE_FINALIZER]
        metadata = {"finalizers": remaining, "resourceVersion": workspace.metadata.resource_version}
        await request.api.patch(workspace, MergePatch({"metadata": metadata}))
