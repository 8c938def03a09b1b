"""What one reconcile of a Workspace observed.

The steps fill in a `ReconcileState`; `status` computes the conditions from it. A part that is None was not observed,
because the reconcile ended or the step failed before it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import final

from kaito.api import Claim, Workspace
from kaito.api.karpenter import NodePool
from kaito.api.workspace import AdapterStatus, PerformanceStatus, ScalingStatus
from kaito.models.copies import nodes_before_plan
from kaito.runtime.kinds import Job, Pod, StatefulSet
from kaito.runtime.meta import Quantity
from kaito.workspace.alternatives import Choice
from kaito.workspace.nodes import NodesReport
from kaito.workspace.plan import Hardware, Plan, PlanFailure
from kaito.workspace.pod_faults import Fault
from kaito.workspace.start_progress import Progress


@final
@dataclass(slots=True, kw_only=True)
class ClaimsReport:
    """The claims of a Workspace, and what this reconcile did about them."""

    wanted: int = 0
    """Number of claims that the Workspace needs."""
    claims: Sequence[Claim] = ()
    """The Workspace's claims, terminating ones included, sorted by name."""
    failure: tuple[str, str] | None = None
    """Reason and message if a claim could not be created: the API server rejected it, or its node class is unusable."""
    node_class_note: str = ""
    """Why it is unknown whether the node class is Ready; empty if it is known, or was not read."""
    unattended: list[str] = field(default_factory=list[str])
    """Names of the claims that no provisioner has reported on for a minute."""
    retry_at: datetime | None = None
    """Latest time at which a lost claim is replaced."""
    terminating: Sequence[str] = ()
    """Names of the lost claims that must be deleted before the backoff begins."""
    failures: int = 0
    """Number of consecutive losses."""
    loss_cause: str = ""
    """Why the last claim was lost; empty if unknown."""
    given_up: Sequence[str] = ()
    """Name and reason of each claim that was deleted because it did not become ready."""
    choice: Choice | None = None
    """The chosen alternative; None if the Workspace names one instance type."""
    over_budget: str = ""
    """Why missing claims are not created, by how much their cost exceeds a limit; empty if it does not."""
    pool: NodePool | None = None
    """The Workspace's NodePool (`--node-api karpenter`); None if it does not exist, or claims are created directly."""
    pool_note: str = ""
    """What happens to nodes of the pool that differ from its template; empty if none differs."""
    is_released: bool = False
    """Whether tuning has ended and its nodes are given back."""
    complete: bool = False
    """Whether the step succeeded: the next reconcile then expects the claims in `live`."""

    @property
    def live(self) -> list[Claim]:
        """Claims that are not being deleted."""
        return [claim for claim in self.claims if not claim.deleting]

    @property
    def ready(self) -> list[Claim]:
        """Claims that are Ready and not being deleted."""
        return [claim for claim in self.live if claim.is_ready]


@final
@dataclass(slots=True, kw_only=True)
class WorkloadReport:
    """The StatefulSet or Job of a Workspace, and its pods."""

    stateful_set: StatefulSet | None = None
    workers: StatefulSet | None = None
    """The workers of copies that are divided over several nodes; `stateful_set` has their leaders."""
    job: Job | None = None
    pods: Sequence[Pod] = ()
    event_fault: Fault | None = None
    """Why pods are missing or do not start, according to Events."""
    progress: Mapping[str, Progress] = field(default_factory=dict[str, Progress])
    """What each pod does that is not ready, by its name; only pods that report it."""
    adapters: Sequence[AdapterStatus] | None = None
    """State of the adapters that pods load without a restart; None if there are none."""
    performance: PerformanceStatus | None = None
    """What the servers measured when they started; None if nothing is known."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationReport:
    """Scaling to zero and back, for a Workspace whose `minReplicas` is 0."""

    scaling: ScalingStatus
    """The new `status.scaling`."""
    has_activator: bool
    """Whether a pod of the activator is ready, so that a request starts a copy."""
    problem: str = ""
    """Why the Workspace is not scaled to zero although it is idle."""


@final
@dataclass(slots=True, kw_only=True)
class ReconcileState:
    """Everything that one reconcile observed."""

    plan: Plan | None = None
    plan_failure: PlanFailure | None = None
    """Why there is no plan."""
    nodes: NodesReport | None = None
    unused_preferred: Sequence[str] = ()
    """One clause for each preferred node that cannot be used, if nodes are missing."""
    claims: ClaimsReport | None = None
    workload: WorkloadReport | None = None
    activation: ActivationReport | None = None
    """None unless the Workspace scales to zero."""
    workload_created: bool = False
    """Whether this reconcile created the workload."""
    pending_template: str = ""
    """Digest of a pod template that waits for the InferenceSet; empty if none does."""
    rejection: tuple[str, str] | None = None
    """Reason and message of the first obstacle to applying the workload."""

    def hardware(self, workspace: Workspace) -> Hardware:
        """The planned nodes. Without a plan, the nodes that the Workspace requests, to evaluate those it has."""
        if self.plan is not None:
            return self.plan.hardware
        is_zero = workspace.tuning is None and workspace.spec.replicas == 0
        wanted = 0 if is_zero else nodes_before_plan(workspace)
        return Hardware(copies=wanted, instance_type=workspace.resource.instance_type, gpus=0, disk=Quantity(0))


def can_place_pods(nodes: NodesReport | None, claims: ClaimsReport | None) -> bool:
    """Whether nodes and claims are ready, so that a workload may be created."""
    return nodes is not None and nodes.is_sufficient and (claims is None or len(claims.ready) >= claims.wanted)
