"""The reconcile of a Workspace, and the controller that runs it.

    plan       checks the Workspace and computes nodes and commands          steps.plan
    nodes      finds the Workspace's nodes and evaluates them                steps.nodes
    claims     creates missing node claims, replaces lost ones               steps.claims
               or keeps the NodePool (--node-api karpenter)                  steps.pool
    services   applies the Services of an inference Workspace                steps.services
    workload   applies the StatefulSet or the Job, and observes its pods     steps.inference, steps.tuning
    activator  leads requests to the activator, scales to zero                steps.activator
    surplus    deletes claims of nodes that are no longer needed             steps.surplus
    replicas   sets `spec.replicas` of a Workspace that has none             steps.replicas
    cost       accounts what the nodes cost                                  steps.cost
    status     sets the conditions from what the steps observed              steps.status

A step also observes if there is no plan, or if an earlier step failed: the status then still describes the nodes and
the workload that exist. No step waits; the controller watches everything that takes time.
"""

import asyncio
from typing import Final, final

from kaito.api import Machine, NodeClaim, Workspace, conditions, labels
from kaito.api.karpenter import NodePool
from kaito.prices.book import PriceBook
from kaito.runtime import Again, Request
from kaito.runtime.cache import Cached
from kaito.runtime.client import StatusScope
from kaito.runtime.controller import Controller
from kaito.runtime.kinds import (
    ConfigMap,
    EndpointSlice,
    Job,
    Namespace,
    NetworkPolicy,
    Node,
    PersistentVolumeClaim,
    Pod,
    Secret,
    Service,
    ServiceAccount,
    StatefulSet,
)
from kaito.runtime.meta import Resource
from kaito.runtime.source import FunctionSource
from kaito.runtime.tracing import NO_TRACER, Tracer
from kaito.workspace import triggers
from kaito.workspace.activator_ports import ActivatorPorts
from kaito.workspace.activity import ActivityMonitor
from kaito.workspace.adapter_monitor import AdapterMonitor
from kaito.workspace.budget_ledger import Budgets
from kaito.workspace.classes import PriorityClass, RuntimeClass
from kaito.workspace.context import ReconcileContext
from kaito.workspace.costs import NodePrices
from kaito.workspace.deletions import Deletions
from kaito.workspace.failure import Step, StepFailure
from kaito.workspace.hub.reader import ModelReader
from kaito.workspace.hub.reads import ModelReads, ReadModel
from kaito.workspace.indexes import MACHINES, NODE_CLAIMS, NODES, PODS, WORKSPACE_INDEXES, WORKSPACES_BY_SELECTOR
from kaito.workspace.manifests.claim import claim_kind
from kaito.workspace.metrics import WorkspaceMetrics
from kaito.workspace.node_class_reads import NodeClassReads
from kaito.workspace.preflight.live import ClusterFacts
from kaito.workspace.settings import NodeApi, WorkspaceSettings
from kaito.workspace.start_progress import StartMonitor
from kaito.workspace.state import can_place_pods
from kaito.workspace.steps.activator import ensure_activator
from kaito.workspace.steps.claims import ensure_claims
from kaito.workspace.steps.cleanup import clean_up
from kaito.workspace.steps.cost import update_cost
from kaito.workspace.steps.inference import ensure_inference
from kaito.workspace.steps.nodes import observe_nodes
from kaito.workspace.steps.plan import plan_workspace
from kaito.workspace.steps.pool import ensure_pool
from kaito.workspace.steps.replicas import set_replicas
from kaito.workspace.steps.services import ensure_services
from kaito.workspace.steps.status import WORKLOAD_CONDITIONS, defers_status, set_all_unknown, update_status
from kaito.workspace.steps.surplus import delete_surplus_claims
from kaito.workspace.steps.tuning import ensure_tuning
from kaito.workspace.tracing import ensure_traced

PLANNING: Final = Step("planning", frozenset({conditions.MODEL_RESOLVED, conditions.RESOURCE_READY}))
NODE_STEP: Final = Step("observing the nodes", frozenset({conditions.NODES_READY}))
CLAIM_STEP: Final = Step("claiming nodes", frozenset({conditions.MACHINE_READY, conditions.NODE_CLAIM_READY}))
SERVICE_STEP: Final = Step("applying the Services", WORKLOAD_CONDITIONS)
INFERENCE_STEP: Final = Step("applying the inference workload", WORKLOAD_CONDITIONS)
TUNING_STEP: Final = Step("applying the tuning Job", WORKLOAD_CONDITIONS)
ACTIVATOR_STEP: Final = Step("scaling to zero", WORKLOAD_CONDITIONS)
SURPLUS_STEP: Final = Step("deleting surplus claims", frozenset({conditions.RESOURCE_READY}))
REPLICAS_STEP: Final = Step("setting spec.replicas", frozenset({conditions.RESOURCE_READY}))
STATUS_STEP: Final = Step("computing the status")

RECONCILE_TIMEOUT_SECONDS: Final = 240.0
"""Time limit of a reconcile, shorter than the controller's deadline: the conditions report a request that hangs like
any other failure."""


@final
class WorkspaceReconciler:
    """Reconciles Workspaces. All state that must survive a restart is in the cluster."""

    def __init__(
        self,
        settings: WorkspaceSettings,
        metrics: WorkspaceMetrics | None = None,
        monitor: StartMonitor | None = None,
        read_model: ReadModel | None = None,
        adapters: AdapterMonitor | None = None,
        *,
        activity: ActivityMonitor | None = None,
        mirrors_count: bool = False,
        prices: PriceBook | None = None,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self.settings = settings
        self.activity = activity or ActivityMonitor()
        self.ports = ActivatorPorts(settings.activator_port)
        self.mirrors_count = mirrors_count
        self.tracer = tracer
        self.metrics = metrics or WorkspaceMetrics()
        self.monitor = monitor or StartMonitor()
        self.adapters = adapters or AdapterMonitor()
        self.facts = ClusterFacts(settings.namespace)
        self.models = ModelReads(read_model or ModelReader(settings.hub_endpoint).read)
        self.node_classes = NodeClassReads()
        self.prices = NodePrices(prices or PriceBook())
        self.budgets = Budgets(prices)
        self.deletions = Deletions()

    async def reconcile(self, request: Request[Workspace]) -> None:
        """Runs the steps and writes the status, also if a step failed; see `steps.status` for when it is deferred.

        Raises:
            Exception: what the first failed step raised, or an error that a step deferred.
        """
        request = await ensure_traced(self.tracer, request)
        ctx = ReconcileContext(
            request,
            self.settings,
            self.metrics,
            self.monitor,
            self.adapters,
            self.facts,
            self.models,
            self.node_classes,
            activity=self.activity,
            ports=self.ports,
            budgets=self.budgets,
            mirrors_count=self.mirrors_count,
            prices=self.prices,
            tracer=self.tracer,
        )
        async with request.status() as status:
            await self._run_steps_in_time(ctx)
            try:
                if not defers_status(ctx, status):
                    update_status(ctx, status)
                    self._update_cost(ctx, status)
            except Exception as error:  # noqa: BLE001 - reported in every condition, and raised below
                ctx.failures.append(StepFailure(STATUS_STEP, error))
                set_all_unknown(ctx, status)
        ctx.raise_failure()

    def _update_cost(self, ctx: ReconcileContext, status: StatusScope[Workspace]) -> None:
        """Sets the cost. A failure must not hide the conditions: it is raised after the status is written."""
        try:
            update_cost(ctx, status)
        except Exception as error:  # noqa: BLE001 - raised at the end of the reconcile
            ctx.deferred_errors.append(error)

    async def _run_steps_in_time(self, ctx: ReconcileContext) -> None:
        """Runs the steps and records a timeout as the failure of the current step.

        Cancellation and the loss of the lease end the reconcile without a status.
        """
        try:
            async with asyncio.timeout(RECONCILE_TIMEOUT_SECONDS):
                await self._run_steps(ctx)
        except TimeoutError:
            error = TimeoutError(f"not finished after {RECONCILE_TIMEOUT_SECONDS:.0f} s")
            ctx.failures.append(StepFailure(ctx.current_step or PLANNING, error))

    async def _run_steps(self, ctx: ReconcileContext) -> None:
        run = ctx.run_step
        plan = await run(PLANNING, plan_workspace(ctx))
        await run(NODE_STEP, observe_nodes(ctx, plan))
        nodes = ctx.state.nodes  # includes what the step observed before it failed
        uses_pool = self.settings.node_api is NodeApi.KARPENTER
        claims = await run(CLAIM_STEP, (ensure_pool if uses_pool else ensure_claims)(ctx, plan, nodes))
        can_place = can_place_pods(nodes, claims)
        await run(SERVICE_STEP, ensure_services(ctx, plan, can_place=can_place))
        workload = await run(INFERENCE_STEP, ensure_inference(ctx, plan, can_place=can_place))
        await run(TUNING_STEP, ensure_tuning(ctx, plan, can_place=can_place))
        await run(ACTIVATOR_STEP, ensure_activator(ctx, plan, workload))
        await run(SURPLUS_STEP, delete_surplus_claims(ctx, plan, claims, workload))
        await run(REPLICAS_STEP, set_replicas(ctx, plan))

    async def finalize(self, request: Request[Workspace]) -> Again | None:
        """Deletes the workload and the claims of a Workspace that is being deleted."""
        self.monitor.watch(request.object.key, ())
        self.prices.forget(request.object.uid)
        self.adapters.watch(request.object.key, "", ())
        self.activity.watch(request.object.key, ())
        self.ports.release(request.object.key)
        return await clean_up(request, self.settings, self.deletions)


def workspace_controller(reconciler: WorkspaceReconciler) -> Controller[Workspace]:
    """Returns the controller of Workspaces with its watches."""
    settings = reconciler.settings
    controller = (
        Controller(
            Workspace,
            reconciler.reconcile,
            name="workspace",
            workers=settings.concurrency,
            when=triggers.WORKSPACE_CHANGED,
        )
        .owns(StatefulSet, when=triggers.WORKLOAD_CHANGED)
        .owns(Job, when=triggers.JOB_CHANGED)
        .owns(Service, when=triggers.SERVICE_CHANGED)
        .owns(NetworkPolicy, when=triggers.SERVICE_CHANGED)
        .watches(EndpointSlice, to=triggers.users_of_activator)
        .watches(Pod, to=triggers.owner_of_pod, when=triggers.POD_CHANGED)
        .watches(ConfigMap, to=triggers.users_of_config)
        .receives(FunctionSource(reconciler.monitor.run, name="start-progress"))
        .receives(FunctionSource(reconciler.models.run, name="models"))
        .receives(FunctionSource(reconciler.adapters.run, name="adapters"))
        .receives(FunctionSource(reconciler.activity.run, name="activity"))
        .finalizes(labels.WORKSPACE_FINALIZER, reconciler.finalize)
    )
    kind = claim_kind(settings.node_api)
    if kind is None:
        return controller.watches(Node, to=triggers.users_of_node, when=triggers.NODE_CHANGED)
    claim_changed = triggers.CLAIM_CHANGED
    if settings.node_api is NodeApi.KARPENTER:
        claim_changed = triggers.POOL_CLAIM_CHANGED
        controller = controller.watches(NodePool, to=triggers.owner, when=triggers.POOL_CHANGED)
    return (
        controller.watches(kind, to=triggers.owner, when=claim_changed)
        .watches(Node, to=triggers.owner, when=triggers.NODE_CHANGED)
        .watches(Namespace, to=triggers.workspaces_in, when=triggers.BUDGET_CHANGED)
    )


DROPPED_NODE_FIELDS: Final = (
    "metadata.managedFields",
    "status.images",
    "status.volumesInUse",
    "status.volumesAttached",
)
"""Fields that are most of a node's size and that the controller does not read."""


def cached_kinds(settings: WorkspaceSettings) -> list[Cached]:
    """Returns what the manager caches for the controller.

    Services and workloads are cached without a selector: the controller must see an object of a Workspace's name that
    has another owner, or it would overwrite it. Of ConfigMaps only the metadata is cached, to notice edits.
    """
    label, byo = labels.WORKSPACE, settings.node_api is NodeApi.BYO
    cached = [
        Cached(Workspace, indexes=[*WORKSPACE_INDEXES, *([WORKSPACES_BY_SELECTOR] if byo else [])]),
        Cached(Pod, labels=label, indexes=[PODS]),
        Cached(Node, labels=None if byo else label, indexes=[NODES], drop=DROPPED_NODE_FIELDS),
        Cached(ConfigMap, only="metadata"),
        Cached(NetworkPolicy, labels=label),
        Cached(EndpointSlice, labels=labels.ACTIVATOR),
    ]
    if not byo:
        cached.append(Cached(Namespace, only="metadata"))
    if settings.node_api is NodeApi.MACHINE:
        cached.append(Cached(Machine, labels=label, indexes=[MACHINES]))
    if settings.node_api is NodeApi.KARPENTER:
        cached.append(Cached(NodePool, labels=label))
    if settings.node_api in {NodeApi.NODECLAIM, NodeApi.KARPENTER}:
        cached.append(Cached(NodeClaim, labels=label, indexes=[NODE_CLAIMS]))
    return cached


def live_kinds(settings: WorkspaceSettings) -> list[type[Resource]]:
    """Returns the kinds that are read from the API server each time.

    These are the objects that pods use, read by name, and claims and NodePools that `--node-api` does not
    name.
    """
    used = (Secret, PersistentVolumeClaim, ServiceAccount, PriorityClass, RuntimeClass)
    others = [kind for kind in (Machine, NodeClaim) if kind is not claim_kind(settings.node_api)]
    pools = [] if settings.node_api is NodeApi.KARPENTER else [NodePool]
    return [*used, *others, *pools]
