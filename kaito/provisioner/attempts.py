"""Handles failed launch attempts: counts them, records them, and reports them with the time of the next one."""

from datetime import timedelta

from kaito.api import labels
from kaito.cloud.errors import NEXT_OFFERING, CloudError, Deferred, Verdict
from kaito.provisioner import reasons, record
from kaito.provisioner.context import Pass
from kaito.provisioner.failures import TROUBLE, Failure, failure, pause
from kaito.provisioner.ledger import Offer, Refusal
from kaito.runtime.meta import ConditionStatus, format_time

VISIBLE_SECONDS = 60.0
"""The condition contains the time of the next attempt if it is at least this far away."""


async def recall(run: Pass) -> None:
    """Reads the launch records of all claims, once in the life of a process."""
    ledger = run.tools.ledger
    if ledger.recalled:
        return
    ledger.recalled = True  # set first: a concurrent pass must not read a record that is older by then
    try:
        claims = [claim for kind in run.tools.kinds for claim in await run.api.list(kind)]
    except BaseException:
        ledger.recalled = False
        raise
    for claim in claims:
        record.recall(ledger, claim, run.now)


async def begin_afresh(run: Pass) -> None:
    """Forget the pauses of a claim whose spec changed, or that is annotated to be tried again."""
    asked = labels.RETRY_LAUNCH in run.claim.annotations
    if not asked and not record.is_of_another_spec(run.claim):
        return
    ledger, uid = run.tools.ledger, run.claim.uid
    if asked:
        ledger.reopen(ledger.attempt(uid).refused)
        run.event(reasons.RETRYING, f"annotation {labels.RETRY_LAUNCH}: the launch is tried again now")
    ledger.forget(uid)
    await run.set_metadata(annotations={labels.RETRY_LAUNCH: None, labels.LAUNCH_RECORD: None})


def refuse(run: Pass, offer: Offer, error: CloudError) -> Refusal:
    """Remember, for every claim, that the cloud refused an offer."""
    key, refusal = run.tools.ledger.refuse(
        offer,
        error,
        now=run.now,
        pause=lambda failures: pause(error, failures, run.settings),
        last=run.settings.out_of_stock,
    )
    run.tools.ledger.attempt(run.claim.uid).refused.add(key)
    run.tools.metrics.refused_offers.labels(offer.instance_type, offer.capacity, error.verdict.value).inc()
    return refusal


async def failed(run: Pass, error: CloudError, *, retry: float | None = None, made: bool = False) -> None:
    """An attempt failed, or the cloud could not be asked.

    Args:
        run: the pass.
        error: why.
        retry: seconds until the next attempt, where the offers decide about that.
        made: whether an instance was made in vain; then every verdict counts as a failure of the launch.
    """
    ledger, uid = run.tools.ledger, run.claim.uid
    if isinstance(error, Deferred):  # the cloud refused nothing, so there is nothing to report about it
        run.wake(error.retry_after or run.settings.poll_interval, "request budget")
        return
    counts = made or error.verdict not in TROUBLE
    failures = ledger.failed(uid) if counts else ledger.troubled(uid)
    found = failure(error, failures, run.settings)
    wait = found.retry if retry is None else retry
    if made and retry is None and error.verdict is not Verdict.OVERRIDDEN:
        wait = max(wait, min(VISIBLE_SECONDS * 2.0 ** min(failures - 1, 10), run.settings.capacity_retry_cap))
    ledger.postpone(uid, wait)
    run.wake(wait, found.reason)
    say_failed(run, found.status, found.reason, _with_time(run, found, wait))
    if counts:
        ledger.attempt(uid).last = f"{found.reason}: {error}"
        await write_record(run)


def _with_time(run: Pass, found: Failure, wait: float) -> str:
    if found.status != "False" or wait < VISIBLE_SECONDS:
        return found.message
    at = (run.now + timedelta(seconds=wait)).replace(microsecond=0)
    return f"{found.message}; next attempt at {format_time(at)}"


async def write_record(run: Pass) -> None:
    """Write down what the next process has to know."""
    await run.set_metadata(annotations={labels.LAUNCH_RECORD: record.written(run)})


def say_failed(run: Pass, status: ConditionStatus, reason: str, message: str, instance_type: str = "") -> None:
    """The launch condition, and, when its reason is new, one event and one line in the log."""
    before = run.report.condition(run.claim.stages.launched)
    run.report.launched(status, reason, message)
    if before is None or before.reason != reason:
        size = instance_type or next(iter(run.claim.spec.values(labels.INSTANCE_TYPE)), "")
        run.tools.metrics.launch_failures.labels(size, reason).inc()
        run.event(reason, message, warning=True)
        run.request.log.warning("instance launch failed", reason=reason, message=message)


def combined(refusals: list[CloudError]) -> CloudError:
    """All refusals as one error, of the kind that is most likely to go away: capacity, quota, zone, size."""
    most_temporary = (Verdict.CAPACITY, Verdict.QUOTA, Verdict.ZONE, Verdict.SIZE)
    first = min(refusals, key=lambda refusal: most_temporary.index(refusal.verdict))
    message = "; ".join(dict.fromkeys(refusal.message for refusal in refusals))
    return type(first)(message, code=first.code, verdict=first.verdict)


def is_about_offer(error: CloudError) -> bool:
    """Whether another size, zone or capacity type may succeed."""
    return error.verdict in NEXT_OFFERING
