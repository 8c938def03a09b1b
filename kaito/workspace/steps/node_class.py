"""Checks the node class before a claim is created.

Karpenter deletes a claim whose node class is missing or not ready at once, and ignores one whose class it does not
support. The check costs one request, and only if a claim is to be created: a class that becomes unusable does not
affect nodes that exist.
"""

from typing import Final

from kaito.api.karpenter import NodeClaim, NodeClassRef
from kaito.runtime.meta import find_condition
from kaito.workspace.context import ReconcileContext
from kaito.workspace.manifests.claim import claim_kind
from kaito.workspace.node_class import KAITO
from kaito.workspace.node_class_reads import NodeClassState
from kaito.workspace.state import ClaimsReport
from kaito.workspace.status import claim_condition_type

POLL_SECONDS: Final = 10.0
"""Interval at which an unusable node class is read again: node classes are not watched."""


async def is_node_class_usable(ctx: ReconcileContext, report: ClaimsReport) -> bool:
    """Returns whether claims may be created; otherwise reports the cause and requeues.

    Raises:
        TransportError: the API server cannot be reached.
    """
    problem = (await _read(ctx)).problem
    if problem is None:
        return True
    report.failure = reason, message = problem
    last = find_condition(ctx.workspace.status.conditions, claim_condition_type(ctx.settings.node_api))
    if last is None or last.reason != reason:
        ctx.request.event("Warning", reason, message)
    ctx.request.requeue_after(POLL_SECONDS, "the node class is not usable")
    return False


async def find_node_class_problem(ctx: ReconcileContext) -> str:
    """Returns why claims of the Workspace's node class are deleted; empty if the class does not explain it.

    Raises:
        TransportError: the API server cannot be reached.
    """
    problem = (await _read(ctx, fresh=True)).problem
    return problem[1] if problem is not None else ""


def last_node_class_note(ctx: ReconcileContext) -> str:
    """Returns why it is unknown whether the node class is Ready; empty if it is known."""
    reference = _reference(ctx)
    return ctx.node_classes.last(reference).unknown if reference is not None else ""


def _reference(ctx: ReconcileContext) -> NodeClassRef | None:
    """Returns the node class of new claims; None if it is not an object: for Machines and the gpu-provisioner."""
    if claim_kind(ctx.settings.node_api) is not NodeClaim:
        return None
    reference = ctx.settings.node_class.reference_for(ctx.workspace, ctx.settings.cloud)
    return None if (reference.group, reference.kind) == (KAITO.group, KAITO.kind) else reference


async def _read(ctx: ReconcileContext, *, fresh: bool = False) -> NodeClassState:
    reference = _reference(ctx)
    if reference is None:
        return NodeClassState()
    kind = ctx.settings.node_class.kind_of(reference, ctx.settings.cloud)
    return await ctx.node_classes.state(ctx.api.client, kind, reference, ctx.now, fresh=fresh)
