"""`Simulation`: what an operator's author describes, and `Finding`: what a check returns."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from kaito.runtime.testing.simulate.process import Operator, Process
from kaito.runtime.testing.simulate.steps import StepKind

if TYPE_CHECKING:
    from kaito.runtime.testing.simulate.run import Run


@final
@dataclass(frozen=True, slots=True)
class Finding:
    """A state that must not be, or must not last.

    Attributes:
        invariant: name of the violated invariant.
        text: what is wrong, with the names of the objects.
        within: virtual seconds for which it may last while nothing fails; 0 if it must never be.
    """

    invariant: str
    text: str
    within: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Times of a run in virtual seconds, and limits of work.

    Attributes:
        trouble_seconds: time in which steps happen.
        converge_seconds: time in which everything must be as wanted after the last fault.
        rest_seconds: time after that in which little may be written.
        deletion_seconds: time for which an object may be terminating while nothing fails.
        tear_down_seconds: time in which nothing may be left after everything was deleted.
        reconciles_per_hour: reconciles of one key by one controller.
        writes_per_hour: writes to one object by one operator.
        rest_writes: writes of all operators in the rest period, without leases and Events.
    """

    trouble_seconds: float = 3600.0
    converge_seconds: float = 1800.0
    rest_seconds: float = 300.0
    deletion_seconds: float = 1800.0
    tear_down_seconds: float = 1800.0
    reconciles_per_hour: int = 1500
    writes_per_hour: int = 400
    rest_writes: int = 20


class Simulation(ABC):
    """A simulated world for one or several operators.

    The framework adds the common faults (`common_faults`) and checks: no write without the lease, no reconcile or write
    in a loop, no error that is a mistake of the code, every deletion ends, everything converges and rests.
    """

    name: ClassVar[str] = "simulation"
    limits: Limits = Limits()
    expected_errors: tuple[type[BaseException], ...] = ()
    """Errors of reconciles that the environment causes, besides those of the framework."""
    unfenced: tuple[str, ...] = ("/leases", "/events")
    """Ends of the paths of collections that replicas write without the lease."""

    @property
    @abstractmethod
    def operators(self) -> Sequence[Operator]:
        """The operators, each with its replicas."""

    @abstractmethod
    def actions(self) -> Sequence[StepKind]:
        """The actions of users, and faults of the operators' environment."""

    @abstractmethod
    async def prepare(self, run: "Run") -> None:
        """Install kinds and start stand-ins of controllers; called before the operators start."""

    def check(self, run: "Run") -> Iterable[Finding]:  # noqa: ARG002 - the default checks nothing
        """Return what is wrong in the current state. Called whenever something was written, before time advances."""
        return ()

    def sent(self, run: "Run", process: Process, method: str, path: str) -> None:
        """Check a write of a process immediately before it takes effect; report a violation by `run.fail`."""
        del run, process, method, path

    @abstractmethod
    def missing(self, run: "Run") -> Iterable[str]:
        """Return what is not as users want it; must become empty when nothing fails any more."""

    @abstractmethod
    async def tear_down(self, run: "Run") -> None:
        """Delete everything that users have created."""

    @abstractmethod
    def left(self, run: "Run") -> Iterable[str]:
        """Return what is left after `tear_down`; must become empty."""
