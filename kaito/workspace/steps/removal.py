"""Deletion: the workload first, then the claims, and the Workspace only when they are really gone.

Called instead of the other steps while the Workspace is being deleted. Progress is told in `WorkspaceDeleting`. A
provisioner that never finishes cannot pin the Workspace: after the deletion timeout it goes, with a Warning that names
what it left behind (the orphan collector keeps trying).
"""

from collections.abc import Sequence

from kaito.api import Claim, Machine, NodeClaim, Workspace, conditions as words, labels
from kaito.runtime import Again, Request
from kaito.runtime.client import MergePatch
from kaito.runtime.errors import ApiError, NotFound
from kaito.runtime.kinds import Job, Node, StatefulSet
from kaito.workspace.indexes import NODES, claims_of
from kaito.workspace.manifests.claim import claim_kind
from kaito.workspace.ownership import owner_labels, owns
from kaito.workspace.settings import WorkspaceSettings
from kaito.workspace.steps.takeover import controlled_by

WAIT_SECONDS = 5.0
"""How often remaining claims are looked at although nothing was heard."""


async def release(request: Request[Workspace], settings: WorkspaceSettings) -> Again | None:
    """Delete what the Workspace has; None when nothing remains and the finalizer may go."""
    async with request.status() as status:
        try:
            await _delete_workload(request)
            remaining = await _delete_claims(request, settings)
        except ApiError as refused:
            status.condition(words.WORKSPACE_DELETING, holds=True, reason=words.DELETING, message=refused.message)
            raise
        names = ", ".join(claim.name for claim in remaining)
        if remaining and not _out_of_patience(request, settings):
            message = f"waiting for {remaining[0].kind} {names} to go"
            status.condition(words.WORKSPACE_DELETING, holds=True, reason=words.WAITING_FOR_CLAIMS, message=message)
            return Again(after=WAIT_SECONDS, why=message)
    if remaining:
        note = f"gave up waiting after {settings.deletion_timeout:.0f} s; these claims may still cost money: {names}"
        request.event("Warning", "DeletionTimedOut", note)
    await _release_preferred_nodes(request)
    await _drop_legacy_finalizer(request)
    return None


async def _delete_workload(request: Request[Workspace]) -> None:
    """Delete the StatefulSet and Job, so that pods evicted from a draining node are not made again.

    Their pods end while the node drains; waiting for them here would only keep paid GPUs longer.
    """
    workspace, api = request.object, request.api
    for kind in (StatefulSet, Job):
        workload = await api.find(kind, workspace.name, workspace.namespace)
        if workload is not None and not workload.deleting and controlled_by(workspace, workload):
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
