"""Sets `spec.replicas` of a Workspace that has none, so that the scale subresource works.

Admission sets it for new Workspaces. This step does it for those that were stored before, by an earlier version or
while the webhook did not answer, and after the annotation with the number of nodes changed. It runs only if the webhook
is on: without the webhook, a later change of `resource.count` would have no effect.
"""

import contextlib

from kaito.runtime.client import MergePatch
from kaito.runtime.errors import Conflict
from kaito.workspace.context import ReconcileContext
from kaito.workspace.plan import Plan


async def set_replicas(ctx: ReconcileContext, plan: Plan | None) -> None:
    """Sets the planned number of copies, unless the Workspace has changed meanwhile, which queues it again."""
    workspace = ctx.workspace
    is_unset = workspace.inference is not None and workspace.spec.replicas is None
    if plan is None or ctx.is_read_only or not ctx.mirrors_count or not is_unset:
        return
    change = {
        "metadata": {"resourceVersion": workspace.metadata.resource_version},
        "spec": {"replicas": plan.hardware.copies},
    }
    with contextlib.suppress(Conflict):
        await ctx.api.patch(workspace, MergePatch(change))
