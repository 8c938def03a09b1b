"""Guards of writes: objects with another controller are not overwritten, and rejected writes become a condition.

Both are recorded as the rejection of the reconcile, which the condition of the workload reports.
"""

from typing import Final, TypeVar

from pydantic import ValidationError

from kaito.api import conditions, labels
from kaito.runtime.errors import ApiError
from kaito.runtime.meta import Resource, find_condition
from kaito.workspace.context import ReconcileContext
from kaito.workspace.failure import format_error, is_rejection
from kaito.workspace.ownership import is_controller_of, name_conflict_message
from kaito.workspace.plan import Plan

R = TypeVar("R", bound=Resource)

UNDECIDED_SECONDS: Final = 1.0
"""Delay of the reconcile that selects the source of the weights with the new nodes."""


async def apply_owned(ctx: ReconcileContext, what: str, wanted: R) -> R | None:
    """Applies an object that the Workspace owns; returns None if the API server rejected it, which is recorded.

    The reconcile continues, and is retried with backoff: an admission policy may change. The digest of what was applied
    is recorded on the object, so that a new leader writes only what differs.

    Raises:
        Exception: any other failure.
    """
    try:
        return await ctx.api.ensure(wanted, owner=ctx.workspace, record=labels.APPLIED)
    except (ApiError, ValidationError) as error:
        if not is_rejection(error):
            raise
        record_rejection(ctx, conditions.WORKLOAD_REFUSED, f"the API server rejects {what}: {format_error(error)}")
        ctx.deferred_errors.append(error)
        return None


def record_rejection(ctx: ReconcileContext, reason: str, message: str) -> None:
    """Records the first rejection of a reconcile; later ones may be its consequence."""
    ctx.state.rejection = ctx.state.rejection or (reason, message)


def is_undecided(ctx: ReconcileContext, plan: Plan | None) -> bool:
    """Whether the source of the weights waits for nodes that appeared during this reconcile, which is then repeated.

    Without copies it waits for the first nodes, and no workload is created before.
    """
    if plan is None or plan.container is None or not plan.container.is_weights_provisional:
        return False
    if plan.hardware.count == 0:
        return True
    ctx.request.requeue_after(UNDECIDED_SECONDS, "the source of the weights depends on the new nodes")
    return True


def was_published_ready(ctx: ReconcileContext) -> bool:
    """Whether the status reports that nodes are ready, so that a workload which is created now replaces another one.

    The creation of the first workload has no event: the conditions report it.
    """
    last = find_condition(ctx.workspace.status.conditions, conditions.RESOURCE_READY)
    return last is not None and last.is_true


def is_foreign(ctx: ReconcileContext, obj: Resource) -> bool:
    """Whether an object is not controlled by the Workspace, which is recorded as a name conflict."""
    if is_controller_of(ctx.workspace, obj):
        return False
    record_rejection(ctx, conditions.NAME_CONFLICT, name_conflict_message(obj))
    return True
