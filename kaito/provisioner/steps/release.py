"""Release: a deleted claim's node is drained, its instance goes, and only then the claim does.

The instance is looked for by name, whatever the claim's status says: a claim deleted before its instance was up, or
whose process died before writing its status, leaves nothing behind (upstream gpu-provisioner leaves the instance).
"""

import re
from datetime import datetime, timedelta

from kaito.api import labels
from kaito.api.karpenter import Claim, NodeClaim, conditions as words
from kaito.cloud.errors import CloudError
from kaito.provisioner import reasons
from kaito.provisioner.context import Pass, Tools, moment
from kaito.provisioner.failures import failure
from kaito.provisioner.nodes import nodes_of, owns_instance
from kaito.provisioner.settings import ProvisionerSettings
from kaito.runtime.meta.model import format_time

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
    """Delete the claim's nodes; the node controller drains them and lets them go."""
    nodes = await nodes_of(run.api, run.claim)
    for node in nodes:
        if not node.deleting:
            await run.api.delete(node)
    if nodes:
        names = ", ".join(node.name for node in nodes)
        run.report.say(words.DRAINED, "Unknown", words.DRAINING, f"waiting for node {names} to go")
        run.wake(DRAIN_CHECK_SECONDS, "node terminating")
    elif run.report.condition(words.DRAINED) is not None:
        run.report.say(words.DRAINED, "True")
    return bool(nodes)


async def _instance_gone(run: Pass) -> bool:
    try:
        wait = await end_instance(run.tools, run.claim.name, run.claim.uid, run.claim.status.provider_id)
    except CloudError as error:
        found = failure(error, run.tools.ledger.failed(run.claim.uid), run.settings)
        run.report.say(words.INSTANCE_TERMINATING, "Unknown", found.reason, found.message)
        run.wake(min(found.retry, run.settings.denied_retry), found.reason)
        return False
    if wait is not None:
        run.report.say(words.INSTANCE_TERMINATING, "True")
        run.wake(wait, "instance terminating")
        return False
    return True


async def end_instance(tools: Tools, name: str, claim_uid: str, provider_id: str = "") -> float | None:
    """One step towards an instance's end: seconds until the next look, or None when it is gone (or not the claim's).

    `provider_id` is the one in the claim's status, if there is a claim.

    Raises:
        CloudError: the cloud refused.
    """
    instance = await tools.cloud.get(name)
    launched = tools.cloud.instance_name(provider_id)
    if instance is None or not owns_instance(instance, claim_uid, launched=launched):
        return None
    if instance.state != "deleting":
        started = await tools.cloud.delete(name)
        if started is None:
            return None
        tools.ledger.keep_pace(claim_uid, started.retry_after)
    return tools.ledger.pace(claim_uid, tools.settings.poll_interval)


def grace_period(claim: Claim, settings: ProvisionerSettings) -> float:
    """Seconds that draining may take; 0 for as long as it wants."""
    text = claim.spec.termination_grace_period if isinstance(claim, NodeClaim) else None
    if text is None:
        return settings.default_grace_period
    return float(sum(int(number) * _UNIT[unit] for number, unit in _DURATION.findall(text)))


def termination_time(claim: Claim | None) -> datetime | None:
    """When draining turns into force, as written on the claim."""
    return moment(claim.annotations.get(labels.TERMINATION_TIMESTAMP, "")) if claim is not None else None
