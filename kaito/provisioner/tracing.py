"""Records the stages of a claim as spans of the trace of its Workspace."""

from kaito.provisioner.context import ReconcileContext
from kaito.runtime.controller import origin_of

STAGES = ("launch", "register", "initialize")
"""Names of the spans, in the order of the stages."""


def record_stages(ctx: ReconcileContext) -> None:
    """Records each stage that this reconcile reached: from the end of the one before it, or the claim's creation."""
    tracer, claim = ctx.deps.tracer, ctx.claim
    created = claim.metadata.creation_timestamp
    parent = origin_of(claim, tracer.annotation, ctx.now).parent
    if not parent or created is None:
        return
    start = created
    for name, stage in zip(STAGES, claim.stages, strict=True):
        if not ctx.status.is_true(stage):
            return
        before = ctx.status.previous(stage)
        if before is not None and before.is_true:
            start = before.last_transition_time or start
            continue
        attributes = {"kaito.claim": claim.name, "cloud.instance_type": claim.instance_type}
        tracer.record_span(name, start=start, end=ctx.now, parent=parent, attributes=attributes)
        start = ctx.now
