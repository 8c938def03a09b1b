"""Context of one reconcile of one Workspace, passed to every step.

`controller` builds a `ReconcileContext` for each reconcile and runs the steps with it. A step observes, acts, and
stores its observations in `state` as soon as it has them, so that the status also reports what a failed step observed.
Steps do not wait and do not write the status.
"""

from collections.abc import Awaitable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar, final

from kaito.api import Workspace
from kaito.runtime import Api, Request
from kaito.runtime.errors import NotLeader
from kaito.runtime.tracing import NO_TRACER, Tracer
from kaito.workspace.activator_ports import ActivatorPorts
from kaito.workspace.activity import ActivityMonitor
from kaito.workspace.adapter_monitor import AdapterMonitor
from kaito.workspace.budget_ledger import Budgets
from kaito.workspace.costs import NodePrices
from kaito.workspace.failure import Step, StepFailure
from kaito.workspace.hub.reader import ModelReader
from kaito.workspace.hub.reads import ModelReads
from kaito.workspace.metrics import WorkspaceMetrics
from kaito.workspace.node_class_reads import NodeClassReads
from kaito.workspace.preflight.live import ClusterFacts
from kaito.workspace.settings import DEFAULT_ACTIVATOR_PORT, WorkspaceSettings
from kaito.workspace.start_progress import StartMonitor
from kaito.workspace.state import ReconcileState

T = TypeVar("T")


@final
@dataclass(slots=True)
class ReconcileContext:
    """Inputs, observations and failures of one reconcile."""

    request: Request[Workspace]
    settings: WorkspaceSettings
    metrics: WorkspaceMetrics
    monitor: StartMonitor
    """Polls pods that start; shared by all reconciles of the process."""
    adapters: AdapterMonitor = field(default_factory=AdapterMonitor)
    """Polls pods whose adapters change; shared by all reconciles of the process."""
    facts: ClusterFacts = field(default_factory=ClusterFacts)
    """What is known about the cluster; shared by all reconciles of the process."""
    models: ModelReads = field(default_factory=lambda: ModelReads(ModelReader("").read))
    """Reads models outside the catalog; shared by all reconciles of the process."""
    node_classes: NodeClassReads = field(default_factory=NodeClassReads)
    """Node classes that were read recently; shared by all reconciles of the process."""
    activity: ActivityMonitor = field(default_factory=ActivityMonitor)
    """Polls pods of Workspaces that scale to zero; shared by all reconciles of the process."""
    ports: ActivatorPorts = field(default_factory=lambda: ActivatorPorts(DEFAULT_ACTIVATOR_PORT))
    """Ports of the activator; shared by all reconciles of the process."""
    mirrors_count: bool = False
    """Whether admission sets `spec.replicas` when `resource.count` changes."""
    prices: NodePrices = field(default_factory=NodePrices)
    """Prices of nodes; shared by all reconciles of the process."""
    budgets: Budgets = field(default_factory=Budgets)
    """Prices, and locks of namespaces; shared by all reconciles of the process."""
    tracer: Tracer = NO_TRACER
    """Records the phases of the start."""
    state: ReconcileState = field(default_factory=ReconcileState)
    """What the steps observed; the status is computed from it."""
    deferred_errors: list[Exception] = field(default_factory=list[Exception])
    """Errors that the conditions already report and that did not stop a step. The first one is raised at the end of the
    reconcile, so that it is retried with backoff."""
    failures: list[StepFailure] = field(default_factory=list[StepFailure])
    """Steps that raised."""
    current_step: Step | None = None
    """The step that runs, for the report of a reconcile that times out."""

    @property
    def workspace(self) -> Workspace:
        """The Workspace as it was when the reconcile began."""
        return self.request.object

    @property
    def api(self) -> Api:
        """Reads and writes of this reconcile."""
        return self.request.api

    @property
    def now(self) -> datetime:
        """The current time."""
        return self.request.clock.now()

    @property
    def is_read_only(self) -> bool:
        """Whether an earlier step failed. The remaining steps then observe and change nothing."""
        return bool(self.failures)

    async def run_step(self, step: Step, work: Awaitable[T]) -> T | None:
        """Awaits the work of a step. If it raises, records the failure and returns None.

        Raises:
            NotLeader: the lease was lost, which ends the reconcile without a status.
        """
        self.current_step = step
        try:
            return await work
        except NotLeader:
            raise
        except Exception as error:  # noqa: BLE001 - reported in the conditions, and raised at the end of the reconcile
            self.failures.append(StepFailure(step, error))
            return None

    def raise_failure(self) -> None:
        """Ends the reconcile: raises what the first failed step raised, else the first deferred error, if any."""
        for failure in self.failures:
            raise failure.error
        if self.deferred_errors:
            raise self.deferred_errors[0]
