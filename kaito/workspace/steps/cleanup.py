"""Deletion: the workload first, then the claims, and the Workspace only when they are really gone.

Called instead of the other steps while the Workspace is being deleted. Progress is reported in `WorkspaceDeleting`; all
other conditions are False from the first pass. A
provisioner that never finishes cannot pin the Workspace: after the deletion timeout it goes, with a Warning that names
what it left behind (the orphan collector keeps trying).
"""

from collections.abc import Sequence

from kaito.api import Claim, Machine, NodeClaim, Workspace, conditions, labels
from kaito.api.karpenter.conditions import INSTANCE_TERMINATING
from kaito.runtime import Again, Request
from kaito.runtime.client import MergePatch, StatusScope
from kaito.runtime.errors import NotFound, NotLeader
from kaito.runtime.kinds import Job, Node, StatefulSet
from kaito.workspace.failure import describe
from kaito.workspace.indexes import NODES, claims_of
from kaito.workspace.manifests.claim import claim_kind
from kaito.workspace.ownership import controls, owner_labels, owns
from kaito.workspace.settings import WorkspaceSettings
from kaito.workspace.steps.status import LONGEST_MESSAGE, OWN_CONDITIONS

WAIT_SECONDS = 5.0
"""How often remaining claims are looked at although nothing was heard."""


async def release(request: Request[Workspace], settings: WorkspaceSettings) -> Again | None:
    """Delete what the Workspace has; None when nothing remains and the finalizer may go."""
    async with request.status() as status:
        _end_service(request, status)
        try:
            return await _remove(request, settings, status)
        except NotLeader:
            raise
        except Exception as error:
            _report(request, status, conditions.DELETION_FAILED, describe(error))
            raise


async def _remove(
    request: Request[Workspace], settings: WorkspaceSettings, status: StatusScope[Workspace]
) -> Again | None:
    await _delete_workload(request)
    remaining = await _delete_claims(request, settings)
    if remaining and not _out_of_patience(request, settings):
        reason, message = _progress(remaining)
        _report(request, status, reason, message)
        return Again(after=WAIT_SECONDS, why=message)
    if remaining:
        names = ", ".join(claim.name for claim in remaining)
        note = f"gave up waiting after {settings.deletion_timeout:.0f} s; these claims may still cost money: {names}"
        request.event("Warning", "DeletionTimedOut", note)
    await _release_preferred_nodes(request)
    await _drop_legacy_finalizer(request)
    return None


def _end_service(request: Request[Workspace], status: StatusScope[Workspace]) -> None:
    """From the first pass of a deletion nothing is ready any more: the workload is deleted before all else."""
    workspace = request.object
    workload = conditions.JOB_STARTED if workspace.tuning is not None else conditions.INFERENCE_READY
    columns = {conditions.RESOURCE_READY, workload, conditions.WORKSPACE_SUCCEEDED, conditions.WORKSPACE_READY}
    present = {condition.type for condition in status.conditions} & OWN_CONDITIONS
    message = "the workspace is being deleted"
    for each in sorted(present | columns):
        holds = None if each == conditions.MODEL_RESOLVED else False
        status.condition(each, holds, conditions.DELETING, message)
    if workspace.tuning is None:
        status.set(state="NotReady")
    elif workspace.status.state == "Running":
        status.set(state="Pending")


def _progress(remaining: Sequence[Claim]) -> tuple[str, str]:
    """Reason and message of what the deletion waits for, with the words of the provisioner where it has any."""
    names = ", ".join(claim.name for claim in remaining)
    waits = f"waiting for {remaining[0].kind} {names} to go"
    found = [(claim, found) for claim in remaining if (found := claim.termination_trouble()) is not None]
    if not found:
        return conditions.WAITING_FOR_CLAIMS, waits
    refused = [pair for pair in found if pair[1].status == "False" and pair[1].type == INSTANCE_TERMINATING]
    claim, condition = (refused or found)[0]
    reason = conditions.CLOUD_REFUSES_DELETION if refused else conditions.WAITING_FOR_CLAIMS
    detail = ": ".join(filter(None, (condition.reason, condition.message)))
    return reason, f"{waits}; {claim.kind} {claim.name}: {detail}"


def _report(request: Request[Workspace], status: StatusScope[Workspace], reason: str, message: str) -> None:
    """Set WorkspaceDeleting; a Warning when it reports a failure or a refusal that the last pass did not."""
    before = status.find(conditions.WORKSPACE_DELETING)
    is_news = before is None or (before.reason, before.message) != (reason, message)
    if is_news and reason in {conditions.DELETION_FAILED, conditions.CLOUD_REFUSES_DELETION}:
        request.event("Warning", reason, message)
    status.condition(conditions.WORKSPACE_DELETING, holds=True, reason=reason, message=message[:LONGEST_MESSAGE])


async def _delete_workload(request: Request[Workspace]) -> None:
    """Delete the StatefulSet and Job, so that pods evicted from a draining node are not made again.

    Their pods end while the node drains; waiting for them here would only keep paid GPUs longer.
    """
    workspace, api = request.object, request.api
    for kind in (StatefulSet, Job):
        workload = await api.find(kind, workspace.name, workspace.namespace)
        if workload is not None and not workload.deleting and controls(workspace, workload):
            await api.delete(workload, propagation="Background")


async def _delete_claims(request: Request[Workspace], settings: WorkspaceSettings) -> Sequence[Claim]:
    """Delete every claim of the Workspace, of the other kind too (the controller may have been switched over)."""
    workspace, api = request.object, request.api
    remaining: list[Claim] = []
    for kind in (Machine, NodeClaim):
        if kind is claim_kind(settings.node_api):
            found: Sequence[Claim] = await api.list(kind, index=claims_of(kind, workspace.key))
        else:
            found = await _claims_of_other_kind(request, kind)
        own = [claim for claim in found if owns(workspace, claim)]
        for claim in own:
            if not claim.deleting:
                await api.delete(claim)
                request.log.info("claim deleted", claim=claim.name)
        remaining.extend(own)
    return remaining


async def _claims_of_other_kind(request: Request[Workspace], kind: type[Claim]) -> Sequence[Claim]:
    """Claims read live; none when the cluster does not know the kind at all."""
    try:
        return await request.api.list(kind, labels=owner_labels(request.object), consistency="live", unreadable="fail")
    except NotFound:
        return []


def _out_of_patience(request: Request[Workspace], settings: WorkspaceSettings) -> bool:
    asked = request.object.metadata.deletion_timestamp
    return asked is not None and (request.clock.now() - asked).total_seconds() > settings.deletion_timeout


async def _release_preferred_nodes(request: Request[Workspace]) -> None:
    """Give nodes that were there before back to everybody."""
    taken = (labels.WORKSPACE, labels.WORKSPACE_NAMESPACE, labels.PREFERRED)
    for node in await request.api.list(Node, index=NODES(str(request.object.key))):
        if labels.PREFERRED in node.labels:
            await request.api.patch(node, MergePatch({"metadata": {"labels": dict.fromkeys(taken)}}))


async def _drop_legacy_finalizer(request: Request[Workspace]) -> None:
    """Upstream Kaito's finalizer on a Workspace that was taken over: nobody else will remove it."""
    workspace = request.object
    if labels.LEGACY_WORKSPACE_FINALIZER in workspace.metadata.finalizers:
        kept = [name for name in workspace.metadata.finalizers if name != labels.LEGACY_WORKSPACE_FINALIZER]
        metadata = {"finalizers": kept, "resourceVersion": workspace.metadata.resource_version}
        await request.api.patch(workspace, MergePatch({"metadata": metadata}))
