"""Deletes the nodes and the instance of a claim that is being deleted.

The instance is read by name, whatever the claim's status contains. A claim that is deleted before its instance is
ready, or whose process died before writing the status, therefore leaves no instance behind (upstream's gpu-provisioner
does).
"""

import re
from datetime import datetime, timedelta

from kaito.api import labels
from kaito.api.karpenter import Claim, NodeClaim, conditions
from kaito.cloud.errors import CloudError
from kaito.provisioner import reasons
from kaito.provisioner.context import ReconcileContext, parse_time
from kaito.provisioner.instance_deletion import advance_deletion, record_failure
from kaito.provisioner.nodes import nodes_of
from kaito.provisioner.settings import ProvisionerSettings
from kaito.runtime.client import ConditionUpdate
from kaito.runtime.meta import format_time

DRAIN_CHECK_SECONDS = 10.0
"""Requeue delay while a node is drained; its deletion also starts a reconcile."""

_DURATION = re.compile(r"(\d+)([smh])")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600}


async def delete_instance(ctx: ReconcileContext) -> bool:
    """Takes the next step; True once neither node nor instance exists."""
    await _set_termination_time(ctx)
    if await _delete_nodes(ctx):
        return False
    return await _delete_instance(ctx)


async def _set_termination_time(ctx: ReconcileContext) -> None:
    """Writes to the claim when draining ends, once, so that every process and reconcile uses the same time."""
    grace_seconds = grace_period_seconds(ctx.claim, ctx.settings)
    deleted = ctx.claim.metadata.deletion_timestamp
    if not grace_seconds or deleted is None or labels.TERMINATION_TIMESTAMP in ctx.claim.annotations:
        return
    until = format_time(deleted + timedelta(seconds=grace_seconds))
    await ctx.set_metadata(annotations={labels.TERMINATION_TIMESTAMP: until})
    ctx.event(reasons.TERMINATING, f"draining the node until {until}, then deleting the instance")


async def _delete_nodes(ctx: ReconcileContext) -> bool:
    """Deletes the claim's nodes; the node controller drains them and deletes the instance. False if none is left."""
    nodes = await nodes_of(ctx.api, ctx.claim)
    for node in nodes:
        if not node.deleting:
            await ctx.api.delete(node)
    if nodes and ctx.deps.deletions.condition(ctx.claim.uid) is None:
        names = ", ".join(node.name for node in nodes)
        message = f"draining node {names}"
        ctx.status.set_condition(ConditionUpdate.unknown(conditions.DRAINED, conditions.DRAINING, message))
    elif nodes or ctx.status.previous(conditions.DRAINED) is not None:
        ctx.status.set_condition(ConditionUpdate.true(conditions.DRAINED, conditions.DRAINED))
    if nodes:
        _report_deletion(ctx)
        ctx.request.requeue_after(DRAIN_CHECK_SECONDS, "node terminating")
    return bool(nodes)


async def _delete_instance(ctx: ReconcileContext) -> bool:
    try:
        wait = await advance_deletion(ctx.deps, ctx.claim.name, ctx.claim.uid, ctx.claim.status.provider_id)
    except CloudError as error:
        failure = record_failure(ctx.deps, ctx.claim.uid, error)
        ctx.request.requeue_after(failure.retry, failure.reason)
        ctx.request.log.warning("instance deletion rejected", reason=failure.reason, error=str(error))
    else:
        if wait is None:
            return True
        ctx.request.requeue_after(wait, "instance terminating")
    _report_deletion(ctx)
    return False


def _report_deletion(ctx: ReconcileContext) -> None:
    """Sets `InstanceTerminating`, whichever controller requested the deletion; a new failure is also an event."""
    deletion = ctx.deps.deletions.condition(ctx.claim.uid)
    if deletion is None:
        return
    ctx.status.set_condition(deletion)
    if deletion.status == "False":
        ctx.request.event_on_change(deletion)


def grace_period_seconds(claim: Claim, settings: ProvisionerSettings) -> float:
    """Longest time for draining the claim's node; 0 is without a limit."""
    text = claim.spec.termination_grace_period if isinstance(claim, NodeClaim) else None
    if text is None:
        return settings.default_termination_grace_period_seconds
    return float(sum(int(number) * _UNIT_SECONDS[unit] for number, unit in _DURATION.findall(text)))


def termination_time(claim: Claim | None) -> datetime | None:
    """When draining ends and pods are deleted, from the claim's annotation."""
    return parse_time(claim.annotations.get(labels.TERMINATION_TIMESTAMP, "")) if claim is not None else None
