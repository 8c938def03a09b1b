"""Previews a Workspace: what the controller would do about it, without doing it.

`kaito plan` and the admission webhook call this module. It runs the functions that the controller runs: the rules of
admission, the preflight checks, the claim policy, and the builders in `manifests`. A test compares a preview with what
the controller creates on the API server.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, final

from kaito.api import Claim, Workspace, conditions
from kaito.api.karpenter import NodePool
from kaito.models.copies import with_replicas
from kaito.models.preset import Preset
from kaito.prices.book import PriceBook
from kaito.runtime.kinds import ConfigMap, NetworkPolicy, Node, Service, StatefulSet
from kaito.workspace.alternatives import AlternativesRecord, SelectionInputs
from kaito.workspace.budget import BudgetHolder, BudgetText, ClaimCost, Limits, check_cost, limits_of, namespace_limits
from kaito.workspace.claim_policy import ClaimDecision, decide
from kaito.workspace.claim_state import claim_state, pool_state, wanted_claims
from kaito.workspace.manifests.claim import claim_kind, node_claim
from kaito.workspace.manifests.group import is_group, network_policy
from kaito.workspace.manifests.inference import worker_stateful_set
from kaito.workspace.manifests.node_pool import node_pool, permits_drift
from kaito.workspace.manifests.placement import pod_tolerations
from kaito.workspace.manifests.service import services
from kaito.workspace.nodes import NodesReport, evaluate_nodes, find_free_preferred_nodes, preferred_node_labels
from kaito.workspace.plan import Plan
from kaito.workspace.pool_policy import decide_pool
from kaito.workspace.preflight import ClusterReader, Finding, PreflightContext, run_checks, validate_workspace
from kaito.workspace.preflight.context import Workload
from kaito.workspace.settings import NodeApi, WorkspaceSettings

PLACEHOLDER_UID: Final = "00000000-0000-4000-8000-000000000000"
"""UID of a Workspace that the API server has not stored. The names of claims depend on the UID, so that names with this
one are not those that the controller would choose."""

_BUDGET_RETRY: Final = timedelta(seconds=60)
"""Any later time: a pool above the budget does not grow now."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedBudget:
    """The budget of a namespace, and what its other Workspaces have."""

    stated: BudgetText
    others: Sequence[Workspace] = ()
    claims: Sequence[Claim] = ()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Claims and nodes of a cluster. Without a cluster there are none."""

    claims: Sequence[Claim] = ()
    """Claims of the Workspace, terminating ones included."""
    nodes: Sequence[Node] = ()
    """Nodes of the Workspace."""
    preferred: Sequence[Node] = ()
    """Existing nodes that `resource.preferredNodes` names."""
    pool: NodePool | None = None
    """NodePool of the Workspace (`--node-api karpenter`)."""
    budget: ObservedBudget | None = None
    """None if the namespace has no budget, or without a cluster."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedObjects:
    """Objects of a Workspace as the controller applies them."""

    claims: tuple[Claim, ...] = ()
    """Claims to create now; none with a NodePool, from which Karpenter creates them."""
    pool: NodePool | None = None
    """NodePool (`--node-api karpenter`)."""
    configuration: ConfigMap | None = None
    """Defaults of the tuning method, for a tuning Workspace without a ConfigMap."""
    workload: Workload | None = None
    services: tuple[Service, ...] = ()
    workers: StatefulSet | None = None
    """The workers of copies that are divided over several nodes."""
    network_policy: NetworkPolicy | None = None
    """Protects the ports between the nodes of one copy."""

    def all(self) -> list[Claim | NodePool | ConfigMap | Workload | Service | NetworkPolicy]:
        """Returns the objects in the order in which the controller applies them."""
        before = [self.network_policy] if self.network_policy is not None else []
        rest = (self.configuration, self.workers, self.workload)
        pools = [self.pool] if self.pool is not None else []
        return [*self.claims, *pools, *before, *self.services, *(each for each in rest if each is not None)]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What the controller would do about a Workspace."""

    workspace: Workspace
    errors: tuple[Finding, ...] = ()
    """Why the Workspace is rejected, or gets no node; each names the field and the remedy."""
    warnings: tuple[Finding, ...] = ()
    plan: Plan | None = None
    """None if there are errors."""
    decision: ClaimDecision = field(default_factory=ClaimDecision)
    wanted_claims: int = 0
    """Number of nodes that need a claim, existing claims included."""
    new_claims: int = 0
    """Number of claims that are created now, those of a NodePool included."""
    adopted: tuple[str, ...] = ()
    """Preferred nodes that the Workspace would use."""
    objects: PlannedObjects = field(default_factory=PlannedObjects)


async def preview(
    workspace: Workspace,
    settings: WorkspaceSettings,
    cluster: ClusterReader,
    *,
    now: datetime,
    old: Workspace | None = None,
    observed: Observed | None = None,
    prices: PriceBook | None = None,
) -> Preview:
    """Returns what the controller would do about a Workspace.

    Args:
        workspace: the Workspace; one that is not stored gets `PLACEHOLDER_UID`.
        settings: of the controller.
        cluster: reads the objects that the Workspace names.
        now: the current time, for the backoff of lost claims.
        old: the stored Workspace that `workspace` would replace.
        observed: claims and nodes that exist.
        prices: for the limit of the cost; by default those of this package.

    Raises:
        ApiError: the cluster could not be read.
    """
    workspace = with_replicas(identified(workspace), old)
    observed = observed or Observed()
    selection = SelectionInputs(
        record=AlternativesRecord.from_annotations(workspace.annotations),
        claims=tuple(observed.claims),
        now=now,
        limits=_limits(workspace, settings, prices or PriceBook(), observed.budget),
    )
    checked = await run_checks(workspace, settings, cluster, selection)
    found = validate_workspace(workspace, old, settings, preset=_measured_preset(checked))
    violations = [Finding.from_violation(violation) for violation in found]
    planned = tuple(map(_from_text, checked.plan.warnings if checked.plan is not None else ()))
    errors = _unique(finding for finding in (*checked.errors, *violations) if finding.severity == "error")
    warnings = _unique(
        finding for finding in (*violations, *checked.warnings, *planned) if finding.severity == "warning"
    )
    if errors or checked.plan is None:
        return Preview(workspace=workspace, errors=errors, warnings=warnings)
    # The checks name only the chosen one of several instance types.
    return replace(_planned(checked, settings, warnings, now, observed), workspace=workspace)


def _measured_preset(checked: PreflightContext) -> Preset | None:
    """Returns the preset with what its servers measured; None without a measurement.

    Admission does not read measurements. Without them here, its warnings would contain other nodes than the plan.
    """
    preset = checked.plan.model.preset if checked.plan is not None and checked.plan.model is not None else None
    return preset if preset is not None and preset.measured and preset.is_in_catalog else None


def _limits(
    workspace: Workspace, settings: WorkspaceSettings, book: PriceBook, budget: ObservedBudget | None
) -> Limits | None:
    if budget is None:
        return limits_of(workspace, settings, book)
    others, claims = map(BudgetHolder.of, budget.others), map(ClaimCost.of, budget.claims)
    return namespace_limits(workspace, settings, book, stated=budget.stated, others=others, claims=claims)


def identified(workspace: Workspace) -> Workspace:
    """Returns the Workspace with a UID: its own, else `PLACEHOLDER_UID`."""
    return workspace if workspace.uid else workspace.with_metadata(uid=PLACEHOLDER_UID)


def _planned(
    checked: PreflightContext,
    settings: WorkspaceSettings,
    warnings: tuple[Finding, ...],
    now: datetime,
    observed: Observed,
) -> Preview:
    """Returns the preview of a Workspace without errors, from the plan that the checks computed."""
    workspace, plan = checked.workspace, checked.plan
    if plan is None:
        raise AssertionError  # pragma: no cover -- the caller checked it
    nodes, adopted = _nodes(workspace, plan, settings, observed)
    decision, wanted, is_over = ClaimDecision(), 0, False
    if claim_kind(settings.node_api) is not None:
        wanted = wanted_claims(plan.hardware, nodes, observed.claims)
        state = claim_state(
            workspace, settings, now=now, wanted=wanted, claims=observed.claims, nodes=nodes, choice=plan.choice
        )
        decision = decide(state, settings)
        limits, hardware = checked.selection.limits, plan.hardware
        if limits is not None and check_cost(hardware.instance_type, hardware.capacity_types, wanted, limits).problem:
            decision, is_over = replace(decision, create=()), True
    new_claims, pool = len(decision.create), None
    if settings.node_api is NodeApi.KARPENTER:
        new_claims, pool = _pool(workspace, plan, settings, observed, now=now, wanted=wanted, is_over=is_over)
        decision = ClaimDecision()
    claims = tuple(
        node_claim(workspace, plan.hardware, settings, index=index, serial=serial) for index, serial in decision.create
    )
    return Preview(
        workspace=workspace,
        warnings=warnings,
        plan=plan,
        decision=decision,
        wanted_claims=wanted,
        new_claims=new_claims,
        adopted=adopted,
        objects=PlannedObjects(
            claims=claims,
            pool=pool,
            configuration=plan.training_config,
            workload=checked.workload,
            services=services(workspace, leaders_only=is_group(plan)),
            workers=worker_stateful_set(workspace, plan, settings),
            network_policy=network_policy(workspace) if is_group(plan) else None,
        ),
    )


def _pool(
    workspace: Workspace,
    plan: Plan,
    settings: WorkspaceSettings,
    observed: Observed,
    *,
    now: datetime,
    wanted: int,
    is_over: bool,
) -> tuple[int, NodePool | None]:
    """Returns the number of claims that Karpenter creates, and the NodePool; None without one."""
    state = pool_state(
        workspace,
        settings,
        now=now,
        wanted=wanted,
        claims=[claim for claim in observed.claims if not claim.deleting],
        pool=observed.pool,
        not_before=plan.choice.resume_at if plan.choice is not None else None,
    )
    decision = decide_pool(state)
    if is_over and decision.grows:
        decision = decide_pool(replace(state, not_before=now + _BUDGET_RETRY))
    if decision.replicas is None:
        return 0, None
    # `steps.drift` changes the budget of a pool that exists, from the state of the copies.
    drifts = permits_drift(observed.pool) if observed.pool is not None else None
    pool = node_pool(
        workspace, plan.hardware, settings, replicas=decision.replicas, may_drift=drifts, present=observed.pool
    )
    return max(decision.replicas - len(state.claims), 0), pool


def _nodes(
    workspace: Workspace, plan: Plan, settings: WorkspaceSettings, observed: Observed
) -> tuple[NodesReport, tuple[str, ...]]:
    """Evaluates the nodes as `steps.nodes` does, with the preferred nodes that it would label as the Workspace's."""
    tolerations = pod_tolerations(workspace, settings)

    def report(nodes: Sequence[Node]) -> NodesReport:
        return evaluate_nodes(workspace, plan.hardware, nodes, node_api=settings.node_api, tolerations=tolerations)

    found = report(observed.nodes)
    missing = plan.hardware.count - len(found.usable)
    if settings.node_api is NodeApi.BYO or missing <= 0:
        return found, ()
    free = find_free_preferred_nodes(workspace, plan.hardware, observed.preferred, tolerations)[:missing]
    labeled = [node.with_metadata(labels={**node.labels, **preferred_node_labels(workspace)}) for node in free]
    return report([*observed.nodes, *labeled]), tuple(node.name for node in free)


def _unique(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Returns the findings without those whose field and message were reported before."""
    found: dict[tuple[str, str], Finding] = {}
    for finding in findings:
        found.setdefault((finding.field, finding.message), finding)
    return tuple(found.values())


def _from_text(warning: str) -> Finding:
    """Returns the finding of a warning of a plan, which has the form `field: message`."""
    name, _, message = warning.partition(": ")
    return Finding(conditions.INVALID_SPEC, name, message, "warning")
