"""One pass over one Workspace: what the steps share and leave for each other.

`controller` makes a `Pass` for every reconcile and hands it from step to step. A step looks, acts and notes what it saw
in `seen`; it neither sleeps nor writes status. What must not stop the later steps, but must be retried, is deferred.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import final

from kaito.api import Workspace
from kaito.runtime import Again, Api, Request
from kaito.workspace.failure import StepFailure
from kaito.workspace.metrics import WorkspaceMetrics
from kaito.workspace.plan import Plan
from kaito.workspace.preflight.live import AcceptedWorkloads
from kaito.workspace.settings import WorkspaceSettings
from kaito.workspace.status import Observation


@final
@dataclass(slots=True)
class Pass:
    """The state of one reconcile."""

    request: Request[Workspace]
    settings: WorkspaceSettings
    metrics: WorkspaceMetrics
    accepted: AcceptedWorkloads = field(default_factory=AcceptedWorkloads)
    """Workloads that the API server took in a dry run; shared by all reconciles of the process."""
    seen: Observation = field(default_factory=Observation)
    """What the steps saw; the status is computed from it."""
    errors: list[Exception] = field(default_factory=list[Exception])
    """Failures that the conditions report already; the first one is raised at the end, for a retry with backoff."""
    failures: list[StepFailure] = field(default_factory=list[StepFailure])
    """Steps that raised. The steps after them observe and change nothing."""
    wakes: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])
    """When to look again, in seconds from now, and why."""

    @property
    def workspace(self) -> Workspace:
        """The object being reconciled, as it was when the pass began."""
        return self.request.object

    @property
    def plan(self) -> Plan | None:
        """The plan to act on; None when there is none, or an earlier step failed: then a step only looks."""
        return None if self.failures else self.seen.plan

    @property
    def api(self) -> Api:
        """Reads and writes of this pass."""
        return self.request.api

    @property
    def placeable(self) -> bool:
        """Whether nodes and claims are ready, so that a workload may be created."""
        claims, nodes = self.seen.claims, self.seen.nodes
        return nodes is not None and nodes.enough and (claims is None or len(claims.ready) >= claims.wanted)

    @property
    def now(self) -> datetime:
        """The current moment."""
        return self.request.clock.now()

    def wake(self, after: float, why: str) -> None:
        """Look again after so many seconds, or earlier."""
        self.wakes.append((max(after, 0.0), why))

    def wake_at(self, moment: datetime, why: str) -> None:
        """Look again at that moment, or earlier."""
        self.wake((moment - self.now).total_seconds(), why)

    def outcome(self) -> Again | None:
        """The earliest wish to look again.

        Raises:
            Exception: what the first failed step raised, else the first deferred failure.
        """
        for failure in self.failures:
            raise failure.error
        if self.errors:
            raise self.errors[0]
        if not self.wakes:
            return None
        after, why = min(self.wakes)
        return Again(after=after, why=why)
