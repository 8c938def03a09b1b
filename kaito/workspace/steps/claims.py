"""Step: ask for the nodes that are missing, replace claims that failed, and say why the others are not ready."""

from collections.abc import Sequence

from kaito.api import Claim, Machine, conditions as words, labels
from kaito.runtime.client import MergePatch
from kaito.runtime.errors import AlreadyExists, ApiError, NotFound
from kaito.runtime.meta import Condition, find_condition
from kaito.workspace.context import Pass
from kaito.workspace.indexes import claims_of
from kaito.workspace.manifests.claim import claim, claim_kind
from kaito.workspace.ownership import owner_labels, owns
from kaito.workspace.plan import Hardware
from kaito.workspace.provisioning import Attempts, Decision, Situation, decide
from kaito.workspace.status import ClaimsReport, claim_condition_type
from kaito.workspace.steps.tuning import is_finished

_NOT_IN_PLACE = frozenset(
    {
        words.CLAIMS_PENDING,
        words.CLAIM_REPLACEMENT_PENDING,
        words.CLAIM_CREATE_FAILED,
        words.CLAIM_KIND_MISSING,
    }
)
"""Reasons with which the last pass left claims missing on purpose: their absence now is no loss."""


async def ensure(run: Pass) -> None:
    """Create, give up and report claims. Nothing to do when the nodes are the user's own."""
    kind = claim_kind(run.settings.node_api)
    if kind is None:
        return
    existing = await _existing(run, kind)
    plan = run.seen.plan
    if plan is None:
        run.seen.claims = ClaimsReport(wanted=len(existing), claims=existing) if existing else None
        return
    if await is_finished(run, plan):
        # Nothing will run there any more: a node lost now is not bought again.
        run.seen.claims = ClaimsReport(wanted=len(existing), claims=existing)
        return
    report = ClaimsReport(wanted=_wanted(run, plan.hardware, existing), claims=existing)
    run.seen.claims = report
    decision = _decide(run, report)
    if decision.create and decision.attempts.failures:
        # A replacement is bought only against the server's own word: the cache of a fresh process may be behind.
        report.claims = await _existing(run, kind, live=True)
        decision = _decide(run, report)
    await _record(run, decision.attempts)
    await _give_up(run, report, decision)
    await _create(run, report, decision, plan.hardware)
    missing = report.wanted - len(report.live)
    if missing > 0 and report.failure is None and decision.attempts.due is not None and not report.given_up:
        report.retry_at = decision.attempts.due
    if decision.retry_at is not None:
        run.wake_at(decision.retry_at, "a claim is due")


async def _existing(run: Pass, kind: type[Claim], *, live: bool = False) -> list[Claim]:
    if live:
        found = await run.api.list(kind, labels=owner_labels(run.workspace), consistency="live", unreadable="fail")
    else:
        found = await run.api.list(kind, index=claims_of(kind, run.workspace.key))
    return [each for each in found if owns(run.workspace, each)]


def _wanted(run: Pass, hardware: Hardware, existing: Sequence[Claim]) -> int:
    """Nodes to claim: all, less those the Workspace has without a claim (preferred ones, or labelled by hand)."""
    nodes = run.seen.nodes
    if nodes is None:
        return hardware.count
    claimed = {each.status.node_name for each in existing}
    provisioned = (labels.NODEPOOL, labels.PROVISIONER_NAME, labels.MANAGED_BY)
    free = [
        name
        for name in nodes.usable
        if name not in claimed and not any(key in run.seen.node_objects[name].labels for key in provisioned)
    ]
    return max(hardware.count - len(free), 0)


def _decide(run: Pass, report: ClaimsReport) -> Decision:
    last = _last_verdict(run)
    situation = Situation(
        now=run.now,
        wanted=report.wanted,
        claims=report.claims,
        nodes=run.seen.node_objects,
        attempts=Attempts.read(run.workspace.annotations),
        created_before=last is not None and last.status != "Unknown" and last.reason not in _NOT_IN_PLACE,
        ready_before=last is not None and last.is_true,
    )
    return decide(situation, run.settings)


def _last_verdict(run: Pass) -> Condition | None:
    """What the last pass said about claims."""
    return find_condition(run.workspace.status.conditions, claim_condition_type(run.settings.node_api))


async def _record(run: Pass, attempts: Attempts) -> None:
    """Keep the record on the Workspace before acting on it, so that a crash in between costs a pause, not a node."""
    if attempts == Attempts.read(run.workspace.annotations):
        return
    annotations = {labels.PROVISION_ATTEMPTS: attempts.write()}
    await run.api.patch(run.workspace, MergePatch({"metadata": {"annotations": annotations}}))


async def _give_up(run: Pass, report: ClaimsReport, decision: Decision) -> None:
    reasons: list[str] = []
    for each, why in decision.give_up:
        if await run.api.delete(each):
            run.request.log.warning("claim given up", claim=each.name, why=why)
            run.request.event("Warning", f"{each.kind}GivenUp", f"deleted {each.kind} {each.name}: {why}")
        reasons.append(f"{each.name}: {why}")
    report.given_up = reasons


async def _create(run: Pass, report: ClaimsReport, decision: Decision, hardware: Hardware) -> None:
    """Create what the decision says. A refusal becomes the condition's words; the pass goes on and is retried."""
    created: list[Claim] = []
    for index, serial in decision.create:
        wanted = claim(run.workspace, hardware, run.settings, index=index, serial=serial)
        try:
            created.append(await _create_one(run, wanted))
        except ApiError as refused:
            run.metrics.claim_creates.labels(wanted.kind, "error").inc()
            missing_kind = isinstance(refused, NotFound)
            reason = words.CLAIM_KIND_MISSING if missing_kind else words.CLAIM_CREATE_FAILED
            report.failure = (reason, f"{wanted.kind} {wanted.name} could not be created: {refused.message}")
            last = _last_verdict(run)
            if last is None or (last.reason, last.message) != report.failure:
                run.request.event("Warning", f"{wanted.kind}CreationFailed", refused.message)
            run.errors.append(refused)
            break
    if created:
        names = {each.name for each in created}
        others = [each for each in report.claims if each.name not in names]
        report.claims = sorted([*others, *created], key=lambda each: each.name)


async def _create_one(run: Pass, wanted: Machine | Claim) -> Claim:
    """Create one claim, or find the one that an earlier attempt made.

    Raises:
        ApiError: the server refused, or the name is taken by a claim of somebody else.
    """
    try:
        made = await run.api.create(wanted)
    except AlreadyExists:
        present = await run.api.get(type(wanted), wanted.name, consistency="live")
        if not owns(run.workspace, present):
            raise
        return present
    run.metrics.claim_creates.labels(made.kind, "success").inc()
    run.request.log.info("claim created", claim=made.name, instance_type=made.instance_type)
    note = f"created {made.kind} {made.name} for a node of type {made.instance_type}"
    run.request.event("Normal", f"{made.kind}Created", note)
    return made
