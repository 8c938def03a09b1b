"""The result of a diagnosis, as plain data."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, final

State = Literal["ready", "succeeded", "progressing", "failing", "deleting", "stopped"]
"""`ready` and `succeeded` need nothing. `progressing` waits for something that usually happens. `failing` has a cause
that retries may not remove. `stopped` serves no copy because none is requested."""

LinkState = Literal["ok", "waiting", "failed", "absent", "unknown"]
"""`absent`: does not exist yet. `unknown`: could not be read."""

CONTROLLER_NOT_RUNNING: Final = "ControllerNotRunning"
"""No controller has processed the Workspace, or its deletion."""

NO_PROVISIONER: Final = "NoProvisioner"
"""No provisioner has reported on a claim."""

NAMESPACE_TERMINATING: Final = "NamespaceTerminating"
"""The namespace is being deleted, so that nothing can be created in it."""

FOREIGN_FINALIZER: Final = "ForeignFinalizer"
"""The deletion waits for a finalizer of another controller."""

PROBE_FAILING: Final = "ProbeFailing"
"""The container runs, and its readiness or startup probe fails."""

SERVICE_MISSING: Final = "ServiceMissing"
"""The pods are ready, and the Service that leads to them does not exist."""

LOAD_BALANCER_PENDING: Final = "LoadBalancerPending"
"""The Service of type LoadBalancer has no address yet."""

POD_PENDING: Final = "PodStarting"
"""A pod exists and its containers have not started."""

OWN_REASONS: Final = frozenset(
    {
        CONTROLLER_NOT_RUNNING,
        NO_PROVISIONER,
        NAMESPACE_TERMINATING,
        FOREIGN_FINALIZER,
        PROBE_FAILING,
        SERVICE_MISSING,
        LOAD_BALANCER_PENDING,
        POD_PENDING,
    }
)
"""Reasons that only the diagnosis has; all others are reasons of conditions."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why the Workspace is not ready."""

    kind: str
    """Kind of the object that has the cause."""
    name: str
    reason: str
    message: str
    since: datetime | None = None
    """Since when the cause holds; None if unknown."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class NextStep:
    """What happens next without the user."""

    what: str
    at: datetime | None = None
    """When; None if it depends on an event and not on a time."""
    is_retry: bool = False
    """Whether the step may remove the cause."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EventNote:
    """The Event that explains the state of an object."""

    reason: str
    note: str
    warning: bool
    at: datetime
    """Time of the last occurrence."""
    count: int = 1


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One object of the chain from the Workspace to the server."""

    kind: str
    name: str
    state: LinkState
    summary: str
    """What the object does, or what is wrong with it."""
    since: datetime | None = None
    """Since when it is in this state; None if unknown."""
    created: datetime | None = None
    event: EventNote | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What is known about one Workspace."""

    namespace: str
    name: str
    task: Literal["inference", "tuning"]
    state: State
    serving: bool
    """Whether the model answers, also while something else fails."""
    summary: str
    """One clause about the Workspace as a whole."""
    created: datetime | None
    cause: Cause | None = None
    """None if the Workspace is ready or succeeded."""
    next: Sequence[NextStep] = ()
    """Sorted by time; steps without a time are last."""
    advice: Sequence[str] = ()
    """What the user can do, most useful first. A line that begins with `$ ` is a command."""
    chain: Sequence[Link] = ()
    notes: Sequence[str] = ()
    """What could not be read, and what else the reader must consider."""

    @property
    def is_healthy(self) -> bool:
        """Whether there is no cause to act on."""
        return self.cause is None
