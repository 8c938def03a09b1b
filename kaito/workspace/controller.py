"""The reconcile of a Workspace as a table of contents, and everything that wakes it.

    plan      what does it need?                          steps.plan
    nodes     which nodes has it, and are they ready?     steps.nodes
    claims    ask for those that are missing              steps.claims
    services  how clients and pods reach the pods         steps.services
    workload  serve, or tune                              steps.inference, steps.tuning
    surplus   give back nodes that nothing runs on          steps.surplus
    status    say what was seen                           steps.conclude

Every step looks even when it may not act, so that the status is true for a Workspace that cannot be planned any more,
too. Nothing here sleeps; what takes time is watched.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, final

from kaito.api import Machine, NodeClaim, Workspace, labels
from kaito.runtime import Again, Request
from kaito.runtime.cache import Cached
from kaito.runtime.controller import Controller
from kaito.runtime.kinds import ConfigMap, Job, Node, Pod, Secret, Service, StatefulSet
from kaito.runtime.meta import Resource
from kaito.workspace import wakeups
from kaito.workspace.context import Pass
from kaito.workspace.indexes import MACHINES, NODE_CLAIMS, NODES, PODS, WORKSPACES_BY_CONFIG
from kaito.workspace.manifests.claim import claim_kind
from kaito.workspace.metrics import WorkspaceMetrics
from kaito.workspace.settings import NodeApi, WorkspaceSettings
from kaito.workspace.steps import claims, inference, nodes, plan, removal, services, surplus, tuning
from kaito.workspace.steps.conclude import conclude

Step = Callable[[Pass], Awaitable[None]]

STEPS: Final[Sequence[Step]] = (
    plan.decide,
    nodes.observe,
    claims.ensure,
    services.ensure,
    inference.ensure,
    tuning.ensure,
    surplus.release,
)


@final
class WorkspaceReconciler:
    """Converges one Workspace at a time; holds nothing but settings and metrics, so that a restart forgets nothing."""

    def __init__(self, settings: WorkspaceSettings, metrics: WorkspaceMetrics | None = None) -> None:
        self.settings = settings
        self.metrics = metrics or WorkspaceMetrics()

    async def converge(self, request: Request[Workspace]) -> Again | None:
        """One pass: every step in order, then the status, whatever happened."""
        run = Pass(request, self.settings, self.metrics)
        async with request.status() as status:
            try:
                for step in STEPS:
                    await step(run)
            finally:
                conclude(run, status)
        return run.outcome()

    async def release(self, request: Request[Workspace]) -> Again | None:
        """Clean up a Workspace that is being deleted."""
        return await removal.release(request, self.settings)


def workspace_controller(reconciler: WorkspaceReconciler) -> Controller[Workspace]:
    """The controller: what is reconciled, what wakes it."""
    settings = reconciler.settings
    controller = (
        Controller(
            Workspace,
            reconciler.converge,
            name="workspace",
            workers=settings.concurrency,
            when=wakeups.WORKSPACE_CHANGED,
        )
        .owns(StatefulSet, when=wakeups.WORKLOAD_CHANGED)
        .owns(Job, when=wakeups.JOB_CHANGED)
        .owns(Service, when=wakeups.SERVICE_CHANGED)
        .watches(Pod, to=wakeups.owner_of_pod, when=wakeups.POD_CHANGED)
        .watches(ConfigMap, to=wakeups.users_of_config)
        .finalizes(labels.WORKSPACE_FINALIZER, reconciler.release)
    )
    kind = claim_kind(settings.node_api)
    if kind is None:
        return controller.watches(Node, to=wakeups.users_of_node, when=wakeups.NODE_CHANGED)
    return controller.watches(kind, to=wakeups.owner, when=wakeups.CLAIM_CHANGED).watches(
        Node, to=wakeups.owner, when=wakeups.NODE_CHANGED
    )


NODE_DROPPED: Final = ("metadata.managedFields", "status.images", "status.volumesInUse", "status.volumesAttached")
"""Most of a node's size, and nothing we read."""


def cached_kinds(settings: WorkspaceSettings) -> list[Cached]:
    """What the manager keeps in memory for the controller, and how much of it.

    Services and workloads are kept without a selector: one of a Workspace's name that belongs to somebody else must
    be seen, or it would be overwritten. Of ConfigMaps only the metadata is kept, to hear about edits.
    """
    ours, byo = labels.WORKSPACE, settings.node_api is NodeApi.BYO
    declared = [
        Cached(Workspace, indexes=[WORKSPACES_BY_CONFIG]),
        Cached(Pod, labels=ours, indexes=[PODS]),
        Cached(Node, labels=None if byo else ours, indexes=[NODES], drop=NODE_DROPPED),
        Cached(ConfigMap, only="metadata"),
    ]
    if settings.node_api is NodeApi.MACHINE:
        declared.append(Cached(Machine, labels=ours, indexes=[MACHINES]))
    if settings.node_api is NodeApi.NODECLAIM:
        declared.append(Cached(NodeClaim, labels=ours, indexes=[NODE_CLAIMS]))
    return declared


def live_kinds(settings: WorkspaceSettings) -> list[type[Resource]]:
    """What is read from the server each time: Secrets by name, and claims of the kind not configured."""
    return [Secret, *(kind for kind in (Machine, NodeClaim) if kind is not claim_kind(settings.node_api))]
