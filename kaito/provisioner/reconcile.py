"""The life of a claim, as a table of contents: `converge` while it is wanted, `let_go` once it is deleted.

The controllers of both kinds call these two. Each pass looks at the cluster and the cloud, takes the next step, says
how things are in one status write, and never waits for a machine.
"""

from kaito.api.karpenter import Claim
from kaito.provisioner import reasons
from kaito.provisioner.context import Pass, Tools
from kaito.provisioner.nodes import is_managed
from kaito.provisioner.steps.deadlines import enforce_deadlines
from kaito.provisioner.steps.initialize import initialize
from kaito.provisioner.steps.launch import launch
from kaito.provisioner.steps.register import register
from kaito.provisioner.steps.release import release
from kaito.runtime import Again, Request
from kaito.runtime.errors import Invalid


async def converge(request: Request[Claim], *, tools: Tools) -> Again | None:
    """One pass over a claim that is wanted."""
    if not is_managed(request.object):
        return None  # it does not ask for us (any more): a timer of an earlier claim of the name woke us
    run = Pass.of(request, tools)
    try:
        if await launch(run):
            node = await register(run)
            if node is not None:
                await initialize(run, node)
        await enforce_deadlines(run)
    finally:
        await _write_status(run)
    if run.expired:
        await run.api.delete(run.claim)
    return run.outcome()


async def let_go(request: Request[Claim], *, tools: Tools) -> Again | None:
    """One pass over a claim that is deleted; None lets its finalizer go."""
    run = Pass.of(request, tools)
    gone = False
    try:
        gone = await release(run)
    finally:
        if not gone:
            await _write_last_status(run)
    if not gone:
        return run.outcome()
    tools.ledger.forget(run.claim.uid)
    tools.ledger.quota_freed()
    run.event(reasons.TERMINATED, f"agent pool {run.claim.name} is gone")
    tools.metrics.terminated.labels(run.nodepool).inc()
    age = run.age(run.claim.metadata.deletion_timestamp)
    tools.metrics.termination_seconds.labels(run.nodepool).observe(age)
    return None


async def _write_status(run: Pass) -> None:
    async with run.api.status(run.claim) as scope:
        run.report.write(scope)


async def _write_last_status(run: Pass) -> None:
    """A status the server refuses must not keep the machine: claims of older Kaito fail a newer CRD's validation."""
    try:
        await _write_status(run)
    except Invalid as refused:
        run.request.log.warning("status not written, going on", error=str(refused))
