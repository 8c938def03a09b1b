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

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, final

from kaito.api import Machine, NodeClaim, Workspace, conditions, labels
from kaito.runtime import Again, Request
from kaito.runtime.cache import Cached
from kaito.runtime.controller import Controller
from kaito.runtime.errors import NotLeader
from kaito.runtime.kinds import (
    ConfigMap,
    Job,
    Node,
    PersistentVolumeClaim,
    Pod,
    Secret,
    Service,
    ServiceAccount,
    StatefulSet,
)
from kaito.runtime.meta import Resource
from kaito.workspace import triggers as wakeups
from kaito.workspace.context import Pass
from kaito.workspace.failure import StepFailure
from kaito.workspace.indexes import MACHINES, NODE_CLAIMS, NODES, PODS, WORKSPACES_BY_CONFIG
from kaito.workspace.manifests.claim import claim_kind
from kaito.workspace.metrics import WorkspaceMetrics
from kaito.workspace.preflight.live import AcceptedWorkloads
from kaito.workspace.settings import NodeApi, WorkspaceSettings
from kaito.workspace.steps import claims, cleanup as removal, inference, nodes, plan, services, surplus, tuning
from kaito.workspace.steps.status import conclude, conclude_nothing


@final
@dataclass(frozen=True, slots=True)
class Step:
    """One step of a reconcile, and what is unknown when it fails."""

    run: Callable[[Pass], Awaitable[None]]
    """Looks, and acts when `Pass.plan` allows it."""
    name: str
    """What it does, as the subject of "… failed"."""
    aspects: frozenset[str]
    """Types of the conditions that it decides."""


_WORKLOAD: Final = frozenset({conditions.INFERENCE_READY, conditions.JOB_STARTED})

STEPS: Final[Sequence[Step]] = (
    Step(plan.decide, "planning", frozenset({conditions.MODEL_RESOLVED, conditions.RESOURCE_READY})),
    Step(nodes.observe, "looking at the nodes", frozenset({conditions.NODES_READY})),
    Step(claims.ensure, "claiming nodes", frozenset({conditions.MACHINE_READY, conditions.NODE_CLAIM_READY})),
    Step(services.ensure, "applying the Services", _WORKLOAD),
    Step(inference.ensure, "applying the inference workload", _WORKLOAD),
    Step(tuning.ensure, "applying the tuning Job", _WORKLOAD),
    Step(surplus.release, "releasing surplus nodes", frozenset({conditions.RESOURCE_READY})),
)

PASS_SECONDS: Final = 240.0
"""Longest pass, less than the controller's deadline: a request that hangs is reported like any other failure."""


@final
class WorkspaceReconciler:
    """Converges one Workspace at a time; holds settings, metrics and a memo, so that a restart forgets nothing."""

    def __init__(self, settings: WorkspaceSettings, metrics: WorkspaceMetrics | None = None) -> None:
        self.settings = settings
        self.metrics = metrics or WorkspaceMetrics()
        self.accepted = AcceptedWorkloads()

    async def converge(self, request: Request[Workspace]) -> Again | None:
        """One pass: every step in order, then the status, whatever happened.

        A step that raises does not hide what the others can see: the steps after it look and change nothing, and the
        conditions that it decides report its error.

        Raises:
            Exception: what the first failed step raised, or a failure that a step deferred.
        """
        run = Pass(request, self.settings, self.metrics, self.accepted)
        async with request.status() as status:
            await self._look_and_act(run)
            try:
                conclude(run, status)
            except Exception as error:  # noqa: BLE001 - reported in every condition, and raised by the pass
                run.failures.append(StepFailure(frozenset(), "computing the status", error))
                conclude_nothing(run, status)
        return run.outcome()

    async def _look_and_act(self, run: Pass) -> None:
        """Run every step. Cancellation and the loss of the lease end the pass without a status."""
        current = STEPS[0]
        try:
            async with asyncio.timeout(PASS_SECONDS):
                for current in STEPS:
                    try:
                        await current.run(run)
                    except NotLeader:
                        raise
                    except Exception as error:  # noqa: BLE001 - reported in the conditions, and raised by the pass
                        run.failures.append(StepFailure(current.aspects, current.name, error))
        except TimeoutError:
            late = TimeoutError(f"not finished after {PASS_SECONDS:.0f} s")
            run.failures.append(StepFailure(current.aspects, current.name, late))

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
    """What is read from the server each time: what pods use, by name, and claims of the kind not configured."""
    used = (Secret, PersistentVolumeClaim, ServiceAccount)
    return [*used, *(kind for kind in (Machine, NodeClaim) if kind is not claim_kind(settings.node_api))]
