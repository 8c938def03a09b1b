"""Writes the list of adapters that the pods of an inference Workspace follow, and observes what became of it."""

from collections.abc import Sequence
from typing import Final

from kaito.api.workspace import AdapterStatus
from kaito.runtime.kinds import Pod
from kaito.workspace.adapter_monitor import MAX_MESSAGE_CHARACTERS, AdapterReport
from kaito.workspace.context import ReconcileContext
from kaito.workspace.manifests.adapters import adapter_list, is_listed, list_revision
from kaito.workspace.plan import Plan
from kaito.workspace.steps.guards import apply_owned

_ORDER: Final = ("Failed", "Pending", "Pulling", "Loading", "Loaded")
"""States from the one that needs attention first: an adapter has the first of them that it has in a pod."""


async def ensure_adapter_list(ctx: ReconcileContext, plan: Plan) -> bool:
    """Applies the ConfigMap with the list; returns False if the API server rejects it.

    It must exist before the pods, which mount it.
    """
    wanted = adapter_list(ctx.workspace, plan)
    if wanted is None:
        return True
    return await apply_owned(ctx, "the list of adapters", wanted) is not None


def observe_adapters(ctx: ReconcileContext, plan: Plan | None, pods: Sequence[Pod]) -> list[AdapterStatus] | None:
    """Returns the state of each adapter over all ready pods; None if the pods follow no list, or without a plan."""
    if plan is None:
        return None
    inference = ctx.workspace.inference
    adapters = [adapter for adapter in (inference.adapters if inference else ()) if is_listed(adapter, plan.container)]
    revision = list_revision(ctx.workspace, plan)
    ctx.adapters.watch(ctx.workspace.key, revision, pods)
    if not adapters:
        return None
    ready = [pod for pod in pods if pod.is_ready and not pod.deleting]
    names = sorted(adapter.source.name for adapter in adapters)
    return [_state(name, [(pod.name, ctx.adapters.find(pod)) for pod in ready], revision) for name in names]


def _state(name: str, reports: Sequence[tuple[str, AdapterReport | None]], revision: str) -> AdapterStatus:
    states = [_state_in(name, pod, report, revision) for pod, report in reports]
    if not states:
        return AdapterStatus(name=name, state="Pending", message="no pod is ready")
    return min(states, key=lambda state: _ORDER.index(state.state))


def _state_in(name: str, pod: str, report: AdapterReport | None, revision: str) -> AdapterStatus:
    if report is None:
        return AdapterStatus(name=name, state="Pending", message=f"pod {pod} has not reported its adapters yet")
    if report.problem:
        return AdapterStatus(name=name, state="Failed", message=f"pod {pod}: {report.problem[:MAX_MESSAGE_CHARACTERS]}")
    found = report.find(name)
    if report.revision != revision or found is None or found.state == "Unloading":
        message = f"pod {pod} has not received the list yet, which takes up to two minutes"
        return AdapterStatus(name=name, state="Pending", message=message)
    message = f"pod {pod}: {found.message[:MAX_MESSAGE_CHARACTERS]}" if found.message else ""
    return AdapterStatus(name=name, state=found.state, digest=found.digest[:200], message=message)
