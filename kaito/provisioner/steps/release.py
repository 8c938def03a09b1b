"""Release: a deleted claim's node is drained, its instance goes, and only then the claim does.

The instance is looked for by name, whatever the claim's status says: a claim deleted before its instance was up, or
whose process died before writing its status, leaves nothing behind (upstream gpu-provisioner leaves the instance).
"""

import re
from datetime import datetime, timedelta

from kaito.api import labels
from kaito.api.karpenter import Claim, NodeClaim, conditions
from kaito.cloud.errors import CloudError
from kaito.provisioner import reasons
from kaito.provisioner.context import Pass, moment
from kaito.provisioner.ending import end_instance, refused
from kaito.provisioner.nodes import nodes_of
from kaito.provisioner.settings import ProvisionerSettings
from kaito.runtime.meta import format_time

DRAIN_CHECK_SECONDS = 10.0
"""Between looks at a node that is being drained; its deletion wakes us, too."""

_DURATION = re.compile(r"(\d+)([smh])")
_UNIT = {"s": 1, "m": 60, "h": 3600}


async def release(run: Pass) -> bool:
    """Whether nothing of the claim is left."""
    await _fix_deadline(run)
    if await _nodes_left(run):
        return False
    return await _instance_gone(run)


async def _fix_deadline(run: Pass) -> None:
    """Write down when draining turns into force, once, so that everybody sees the same moment."""
    grace = grace_period(run.claim, run.settings)
    deleted = run.claim.metadata.deletion_timestamp
    if not grace or deleted is None or labels.TERMINATION_TIMESTAMP in run.claim.annotations:
        return
    until = format_time(deleted + timedelta(seconds=grace))
    await run.set_metadata(annotations={labels.TERMINATION_TIMESTAMP: until})
    run.event(reasons.TERMINATING, f"its node is drained until {until}, then its instance is deleted")


async def _nodes_left(run: Pass) -> bool:
    """Delete the claim's nodes; the node controller drains them, ends the instance and lets them go."""
    nodes = await nodes_of(run.api, run.claim)
    for node in nodes:
        if not node.deleting:
            await run.api.delete(node)
    ending = run.tools.ledger.ending_of(run.claim.uid)
    if nodes and ending is None:
        names = ", ".join(node.name for node in nodes)
        run.report.say(conditions.DRAINED, "Unknown", conditions.DRAINING, f"waiting for node {names} to go")
    elif nodes or run.report.condition(conditions.DRAINED) is not None:
        run.report.say(conditions.DRAINED, "True")
    if nodes:
        _say_ending(run)
        run.wake(DRAIN_CHECK_SECONDS, "node terminating")
    return bool(nodes)


async def _instance_gone(run: Pass) -> bool:
    try:
        wait = await end_instance(run.tools, run.claim.name, run.claim.uid, run.claim.status.provider_id)
    except CloudError as error:
        found = refused(run.tools, run.claim.uid, error)
        run.wake(found.retry, found.failure.reason)
        if not found.deferred:
            run.request.log.warning("instance not deleted", reason=found.failure.reason, error=str(error))
    else:
        if wait is None:
            return True
        run.wake(wait, "instance terminating")
    _say_ending(run)
    return False


def _say_ending(run: Pass) -> None:
    """Reports the cloud's answer to the deletion, whichever controller sent it; a refusal is an event once."""
    ending = run.tools.ledger.ending_of(run.claim.uid)
    if ending is None:
        return
    before = run.report.condition(conditions.INSTANCE_TERMINATING)
    run.report.say(conditions.INSTANCE_TERMINATING, ending.status, ending.reason, ending.message)
    is_new = before is None or (before.status, before.reason) != (ending.status, ending.reason)
    if ending.status == "False" and is_new:
        run.event(ending.reason, ending.message, warning=True)


def grace_period(claim: Claim, settings: ProvisionerSettings) -> float:
    """Seconds that draining may take; 0 for as long as it wants."""
    text = claim.spec.termination_grace_period if isinstance(claim, NodeClaim) else None
    if text is None:
        return settings.default_grace_period
    return float(sum(int(number) * _UNIT[unit] for number, unit in _DURATION.findall(text)))


def termination_time(claim: Claim | None) -> datetime | None:
    """When draining turns into force, as written on the claim."""
    return moment(claim.annotations.get(labels.TERMINATION_TIMESTAMP, "")) if claim is not None else None
