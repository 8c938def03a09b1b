"""`Simulation`: what an operator's author describes, and `Run`: one scenario of it, checked at every step.

A run plays the steps for `Limits.trouble_seconds`, ends all faults, waits until everything is as wanted, checks that it
stays so at rest, deletes everything, and waits until nothing is left. The first violation ends it.
"""

import asyncio
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, cast, final

import msgspec

from kaito.runtime.client import Client
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.tasks import TaskScope
from kaito.runtime.testing.objects import OWN_AGENT
from kaito.runtime.testing.simulate.active_faults import ActiveFaults
from kaito.runtime.testing.simulate.counts import ENVIRONMENT_ERRORS, HourlyCounts, Reconciles
from kaito.runtime.testing.simulate.limits import Finding, Limits
from kaito.runtime.testing.simulate.network import Failures
from kaito.runtime.testing.simulate.process import LEASE_SECONDS, Operator, Process
from kaito.runtime.testing.simulate.steps import Scenario, StepKind
from kaito.runtime.testing.simulate.trace import Trace
from kaito.runtime.testing.world import World

TICK_SECONDS: Final = 20.0
"""Interval of checks in the absence of writes, for findings that last too long."""


class Simulation(ABC):
    """A simulated world for one or several operators.

    The framework adds the common faults (`common_faults`) and checks: no write without the lease, no reconcile or write
    in a loop, no error that is a mistake of the code, every deletion ends, everything converges and rests.
    """

    name: ClassVar[str] = "simulation"
    limits: Limits = Limits()
    expected_errors: tuple[type[BaseException], ...] = ()
    """Errors of reconciles that the environment causes, besides those of the framework."""
    lagging: tuple[str, ...] = ()
    """Kinds of objects, such as `ConfigMap`, whose watches may lag behind those of the others."""
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
        """Installs kinds and starts stand-ins of controllers; called before the operators start."""

    def check(self, run: "Run") -> Iterable[Finding]:  # noqa: ARG002 - the default checks nothing
        """Returns what is wrong in the current state. Called whenever something was written, before time advances."""
        return ()

    def sent(self, run: "Run", process: Process, method: str, path: str) -> None:
        """Checks a write of a process immediately before it takes effect; reports a violation by `run.fail`."""
        del run, process, method, path

    @abstractmethod
    def missing(self, run: "Run") -> Iterable[str]:
        """Returns what is not as users want it; must become empty when nothing fails any more."""

    @abstractmethod
    async def tear_down(self, run: "Run") -> None:
        """Deletes everything that users have created."""

    @abstractmethod
    def left(self, run: "Run") -> Iterable[str]:
        """Returns what is left after `tear_down`; must become empty."""


@final
@dataclass(frozen=True, slots=True)
class Violation:
    """The first violation of a run."""

    at: float
    """Virtual seconds from the start."""
    invariant: str
    text: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.text}"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Result of a run."""

    scenario: Scenario
    violation: Violation | None
    trace: Trace
    seconds: float
    """Virtual seconds that the run took."""
    faults: int
    """Number of faults among the steps."""
    reconciles: int
    errors: Mapping[str, int]
    """Number of failed reconciles by class of the error."""
    highest: Mapping[str, int] = field(default_factory=dict[str, int])
    """Highest counts of one object in an hour."""


@final
class Run:
    """One run; passed to the functions of a `Simulation` and its steps."""

    def __init__(self, simulation: Simulation, scenario: Scenario, world: World, *, verbose: bool) -> None:
        loop = asyncio.get_running_loop()
        limits = simulation.limits
        self.simulation = simulation
        self.scenario = scenario
        self.world = world
        rng = random.Random(scenario.seed)  # noqa: S311 - repeatable
        self.client: Client = Client(world.transport(agent=OWN_AGENT), field_manager="user", rng=rng)
        """Client of users, which faults do not affect."""
        self.trace: Trace = Trace(loop.time, verbose=verbose)
        self.failures: list[Failures] = []
        """Active failures of requests."""
        self.violated: asyncio.Future[Violation] = loop.create_future()
        self.scope: TaskScope = TaskScope("simulation")
        """Owns tasks of stand-ins, which end with the run."""
        self.reconciles: Reconciles = Reconciles(
            HourlyCounts(limits.reconciles_per_hour, self._note_hot_reconcile, loop.time),
            simulation.expected_errors,
            self._note_error,
        )
        self.is_calm: bool = False
        """Whether no further faults occur."""
        self.clocks_right_since: float = 0.0
        """Since when all processes know the time; infinite while one has a wrong clock and responses without a time."""
        self._leases_renewed: dict[str, float] = {}
        """When each lease was last written, by name."""
        self._leases_taken: dict[str, float] = {}
        """When the holder of each lease last changed, by name."""
        self._hot = HourlyCounts(limits.writes_per_hour, self._note_hot_writes, loop.time)
        self._faults = ActiveFaults(loop.time)
        self._dirty = True
        self._findings: dict[Finding, float] = {}
        self.processes: dict[str, Process] = {}
        for operator in simulation.operators:
            for number in range(operator.replicas):
                process = Process(self, operator, number)
                self.processes[process.name] = process

    # -- for simulations and their steps -----------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Virtual seconds since the start."""
        return asyncio.get_running_loop().time()

    @property
    def quiet_seconds(self) -> float:
        """Seconds since the last fault ended; 0 while one is active."""
        return self._faults.quiet_seconds

    def stored(self, resource: str) -> dict[tuple[str, str], dict[str, Any]]:
        """Returns the objects of a resource (`pods`, `workspaces.kaito.sh`) in the server, by namespace and name."""
        return self.world.server.stored(resource)

    def changed(self) -> None:
        """Requests a check, because something outside of the API server has changed."""
        self._dirty = True

    def fault_lasts(self, seconds: float) -> None:
        """Declares that a fault has effects for so long from now: bounds of findings start after it."""
        self._faults.last(seconds)

    def end_after(self, seconds: float, end: Callable[[], None], *, disturbs: float | None = None) -> None:
        """Ends a fault after so many seconds, or earlier when all faults end.

        Args:
            seconds: the duration.
            end: ends it.
            disturbs: for how long the fault keeps operators from observing and acting, so that bounds of findings do
                not count; the duration by default, 0 for a fault that operators must handle in their usual time.
        """
        self._faults.end_after(seconds, end, disturbs)

    def set_clock(self, process: Process, offset_seconds: float) -> None:
        """Sets the wall clock of a process ahead of the right time, or behind it; 0 corrects it."""
        process.clock.offset_seconds = offset_seconds
        self._check_clocks()

    def hide_date(self, process: Process, *, is_hidden: bool) -> None:
        """Removes the header Date of responses to a process, or no longer removes it."""
        process.is_date_hidden = is_hidden
        self._check_clocks()

    def _check_clocks(self) -> None:
        is_wrong = any(each.clock.offset_seconds and each.is_date_hidden for each in self.processes.values())
        if is_wrong or self.clocks_right_since == math.inf:
            self.clocks_right_since = math.inf if is_wrong else self.now

    def fail(self, invariant: str, text: str) -> None:
        """Reports a violation; the first one ends the run."""
        if not self.violated.done():
            self.trace.line("VIOLATION", f"{invariant}: {text}")
            self.violated.set_result(Violation(self.now, invariant, text))

    def is_led(self, lease: str) -> bool:
        """Whether a lease was written within its last two retry periods; otherwise no replica acts at present."""
        renewed = self._leases_renewed.get(lease)
        return renewed is not None and self.now - renewed <= 2 * LEASE_SECONDS[2]

    def led_since(self, lease: str) -> float:
        """When the present holder of a lease has taken it; 0 if the lease has not been written."""
        return self._leases_taken.get(lease, 0.0)

    # -- for processes and connections -------------------------------------------------------------------------------

    def failure_of(self, process: Process, method: str) -> Failures | None:
        """Returns the failure that hits this request."""
        return next((failures for failures in self.failures if failures.hits(process, method)), None)

    def note_write(self, process: Process, method: str, target: str, body: bytes | None) -> None:
        """Checks that a process that writes holds its lease. Called immediately before the write takes effect."""
        path = target.partition("?")[0]
        parts = path.split("/")
        if any(f"/{part}" in self.simulation.unfenced for part in parts[-3:]):
            return
        self._hot.add((process.operator.name, path))
        if method != "DELETE" or self._has_preconditions(path, body):
            self.simulation.sent(self, process, method, path)
        if not process.holds_lease():
            self.fail("no write without the lease", f"{process.name} sends {method} {path} and does not hold its lease")

    def _has_preconditions(self, path: str, body: bytes | None) -> bool:
        """Whether the object of a deletion is as its preconditions require; the API server rejects it otherwise."""
        options: dict[str, Any] = msgspec.json.decode(body or b"{}")
        required: dict[str, str] = options.get("preconditions") or {}
        collection, _, name = path.rpartition("/")
        stored = self.stored_metadata(collection, name) if required else {}
        return all(stored.get(field) == value for field, value in required.items())

    def stored_metadata(self, collection: str, name: str) -> dict[str, Any]:
        """Returns the metadata of an object of a collection's path in the server; empty if it does not exist."""
        parts = collection.strip("/").split("/")
        group = parts[1] if parts[0] == "apis" else ""
        namespace = parts[-2] if "namespaces" in parts[:-2] else ""
        found = self.stored(f"{parts[-1]}.{group}" if group else parts[-1]).get((namespace, name))
        return {} if found is None else dict(found["metadata"])

    def note_own_conflict(self, process: Process, text: str) -> None:
        """Reports that a process has not read what it has written."""
        self.fail("reads contain own writes", f"{process.name} {text}")

    def note_exit(self, process: Process, error: BaseException) -> None:
        """Checks why a process has ended."""
        if not self._is_of_environment(error):
            self.fail("no process ends by a mistake", f"{process.name}: {type(error).__name__}: {error!r}")

    def _is_of_environment(self, error: BaseException) -> bool:
        """Whether failures of the environment, and not mistakes of the operator, have ended a process."""
        if isinstance(error, BaseExceptionGroup):
            group = cast("BaseExceptionGroup[BaseException]", error)
            return all(self._is_of_environment(each) for each in group.exceptions)
        expected = (*ENVIRONMENT_ERRORS, *self.simulation.expected_errors)
        return isinstance(error, expected) and not isinstance(error, ConfigurationError)

    def _note_error(self, process: str, controller: str, key: str, error: BaseException) -> None:
        if not self.processes[process].is_alive:
            return  # the remains of a crashed process end
        self.fail("no reconcile fails by a mistake", f"{process}, {controller} {key}: {type(error).__name__}: {error}")

    def _note_hot_reconcile(self, key: tuple[str, ...]) -> None:
        process, controller, name = key
        limit = self.simulation.limits.reconciles_per_hour
        self.fail("no hot loop", f"{process} reconciled {controller} {name} more than {limit} times in an hour")

    def _note_hot_writes(self, key: tuple[str, ...]) -> None:
        operator, path = key
        limit = self.simulation.limits.writes_per_hour
        self.fail("no hot loop", f"{operator} wrote {path} more than {limit} times in an hour")

    # -- playing -----------------------------------------------------------------------------------------------------

    async def play(self, kinds: Mapping[str, StepKind]) -> None:
        """Play the scenario until its end, or until the first violation."""
        limits = self.simulation.limits
        for step in self.scenario.steps:
            if step.at > self.now:
                await asyncio.sleep(step.at - self.now)
            kind = kinds[step.name]
            self.trace.line("fault" if kind.is_fault else "user", kind.describe(step.arguments))
            await kind.apply(self, **step.arguments)
            self._dirty = True
        ends_at = limits.trouble_seconds
        if limits.ends_early:
            ends_at = min(ends_at, self._faults.over_at)
        if self.now < ends_at:
            await asyncio.sleep(ends_at - self.now)
        self.calm()
        await self._until(lambda: list(self.simulation.missing(self)), limits.converge_seconds, "everything converges")
        before = self.trace.writes
        await asyncio.sleep(limits.rest_seconds)
        self._check_rest(self.trace.writes - before)
        self.trace.line("user", "deletes everything")
        await self.simulation.tear_down(self)
        await self._until(lambda: list(self.simulation.left(self)), limits.tear_down_seconds, "every deletion ends")

    def calm(self) -> None:
        """Ends all faults."""
        self.trace.line("fault", "all faults end")
        self._faults.end_all()
        for process in self.processes.values():
            process.resume()
            process.crash_after(0, 0.0)
            process.suspend_after(0, 0.0)
        self.failures.clear()
        self.world.heal()
        down = max((process.down_until for process in self.processes.values()), default=self.now)
        self._faults.settle(down)  # a process that is down starts later
        self.is_calm = True

    async def _until(self, problems: Callable[[], list[str]], within: float, invariant: str) -> None:
        deadline = self.now + within
        while found := problems():
            if self.now >= deadline:
                self.fail(invariant, f"not within {within:g} s: {'; '.join(found[:4])}")
                return
            await asyncio.sleep(5.0)

    def _check_rest(self, writes: int) -> None:
        renewals = sum(
            self.simulation.limits.rest_seconds / LEASE_SECONDS[2] * 2
            for each in self.simulation.operators
            if each.lease
        )
        limit = self.simulation.limits.rest_writes + renewals
        if writes > limit:
            self.fail("no write at rest", f"{writes} writes in {self.simulation.limits.rest_seconds:g} s at rest")
        problems = list(self.simulation.missing(self))
        if problems:
            self.fail("everything converges", f"and stays so; at rest, it does not: {'; '.join(problems[:4])}")

    # -- checking ----------------------------------------------------------------------------------------------------

    def note_change(self, resource: str, obj: Mapping[str, Any], previous: Mapping[str, Any] | None) -> None:
        """Notes a write, which is checked before time advances; checks that no lease is taken before it has expired."""
        self._dirty = True
        if resource != "leases.coordination.k8s.io":
            return
        name, renewed = str(obj["metadata"]["name"]), self._leases_renewed.get(obj["metadata"]["name"])
        self._leases_renewed[name] = self.now  # its own times are those of the clock of its holder
        before: Mapping[str, Any] = (previous or {}).get("spec") or {}
        after: Mapping[str, Any] = obj.get("spec") or {}
        holder = before.get("holderIdentity")
        if after.get("holderIdentity") != holder:
            self._leases_taken[name] = self.now
        if not holder or renewed is None or after.get("holderIdentity") in {holder, "", None}:
            return
        age = self.now - renewed
        if age < float(before.get("leaseDurationSeconds") or 0):
            text = f"{after['holderIdentity']} takes the lease of {holder} {age:.0f} s after its renewal"
            self.fail("no lease is taken before it has expired", text)

    def check(self) -> None:
        """Checks the state if it has changed, and whether findings last too long."""
        if self.violated.done():
            return
        if self._dirty:
            self._dirty = False
            now, before = self.now, self._findings
            self._findings = {}
            for finding in self.simulation.check(self):
                if finding.within <= 0:
                    self.fail(finding.invariant, finding.text)
                    return
                self._findings[finding] = before.get(finding, now)
        self._check_durations()

    def _check_durations(self) -> None:
        now, quiet = self.now, self.quiet_seconds
        for finding, since in self._findings.items():
            if min(now - since, quiet) > finding.within:
                lasts = f"{finding.text}; since {now - since:.0f} s, and at most {finding.within:g} s are allowed"
                self.fail(finding.invariant, lasts)
                return

    async def tick(self) -> None:
        """Checks regularly until cancelled, also if nothing is written."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._dirty = True

    def highest_counts(self) -> dict[str, int]:
        """Returns the highest counts of one object in an hour, to choose limits by."""
        return {"writes": self._hot.highest, "reconciles": self.reconciles.highest}

    def power_off(self) -> None:
        """Ends all processes without a trace: the run is over."""
        for process in self.processes.values():
            process.resume()
            process.switch_off()
