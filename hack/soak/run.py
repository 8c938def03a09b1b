"""`SoakRun`: plays the steps of a seed in real time and checks the reference model every second."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final, cast, final

from hack.soak.cloud import LiveCloud
from hack.soak.kubelets import Kubelets
from hack.soak.live import LiveServer, LiveWorld
from hack.soak.programs import Programs
from kaito.api.karpenter import Claim
from kaito.runtime.client import Client
from kaito.runtime.testing.simulate import Finding, Run, Scenario, StepKind
from kaito.runtime.testing.simulate.active_faults import ActiveFaults
from kaito.runtime.testing.simulate.counts import HourlyCounts
from kaito.runtime.testing.simulate.trace import Trace
from kaito.simulation.manifests import Object, section
from kaito.simulation.reference import Reference

CHECK_SECONDS: Final = 1.0
SLACK_SECONDS: Final = 15.0
"""Added to the bounds of the simulation: events arrive late, and the machine may be busy."""

RESTART_SECONDS: Final = 3.0
"""Time until a process that was not killed by a step is started again."""

WRITES_PER_HOUR: Final = 400
REST_SECONDS: Final = 60.0
REST_WRITES: Final = 10
WATCHED_WRITES: Final = ("workspaces.kaito.sh", "machines.karpenter.sh", "nodeclaims.karpenter.sh")


@final
class SoakRun:
    """One soak test, with the interface of `Run` that steps and the reference model use.

    Args:
        server: the state of the API server.
        client: the client of the users.
        cloud: the simulated cloud.
        kubelets: the stand-ins of the kubelets.
        programs: the processes.
    """

    def __init__(
        self, server: LiveServer, client: Client, cloud: LiveCloud, kubelets: Kubelets, programs: Programs
    ) -> None:
        self.world = LiveWorld(server)
        self.client = client
        self.cloud, self.controllers, self.programs = cloud, kubelets, programs
        self.trace: Trace = Trace(lambda: self.now, verbose=True)
        self.violations: list[str] = []
        self.findings: int = 0
        """Number of states that were observed and ended within their bound."""
        self._began = time.monotonic()
        self._faults = ActiveFaults(lambda: self.now)
        self._since: dict[Finding, float] = {}
        self._written: Counter[str] = Counter()
        self.held: set[str] = set()
        """Names of the processes that a step keeps down."""
        self._changes = HourlyCounts(WRITES_PER_HOUR, self._note_hot, lambda: self.now)
        self.reference: Reference
        server.on_write(self._on_write)

    def refer(self, kind: type[Claim]) -> None:
        """Makes the reference model; `kind` is the kind of the claims."""
        # The model reads the run only through what both kinds of runs have.
        self.reference = Reference(cast("Run", self), cast("Any", self.cloud), kind)

    # -- the interface of `Run` --------------------------------------------------------------------------------------

    @property
    def simulation(self) -> "SoakRun":
        """Has `reference`, `cloud` and `controllers`, as a simulation."""
        return self

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    @property
    def quiet_seconds(self) -> float:
        """Seconds since the last failure ended; 0 while one is active."""
        return self._faults.quiet_seconds

    def stored(self, resource: str) -> dict[tuple[str, str], Object]:
        """Returns the objects of a resource by namespace and name."""
        return self.world.server.stored(resource)

    def changed(self) -> None:
        """Does nothing: the state is checked every second."""

    def fault_lasts(self, seconds: float) -> None:
        """Declares that a failure has effects for so long from now."""
        self._faults.last(seconds)

    def end_after(self, seconds: float, end: Callable[[], None], *, disturbs: float | None = None) -> None:
        """Ends a failure after so many seconds, or earlier when all failures end."""
        self._faults.end_after(seconds, end, disturbs)

    def fail(self, invariant: str, text: str) -> None:
        """Reports a violation; the run continues."""
        self.violations.append(f"{invariant}: {text}")
        self.say("VIOLATION", self.violations[-1])

    def say(self, source: str, text: str) -> None:
        """Prints and keeps a line of the report."""
        self.trace.line(source, text)
        sys.stdout.write(f"{self.trace.lines[-1]}\n")
        sys.stdout.flush()

    # -- playing -----------------------------------------------------------------------------------------------------

    async def play(self, scenario: Scenario, kinds: Iterable[StepKind], seconds: float) -> None:
        """Performs the steps of a scenario, then ends all failures."""
        by_name = {kind.name: kind for kind in kinds}
        for step in scenario.steps:
            if step.at > self.now:
                await asyncio.sleep(step.at - self.now)
            kind = by_name[step.name]
            self.say("fault" if kind.is_fault else "user", kind.describe(step.arguments))
            await kind.apply(self, **step.arguments)
        await asyncio.sleep(max(seconds - self.now, 0.0))
        self.say("fault", "all failures end")
        self._faults.end_all()
        self.cloud.simulator.faults.clear()
        self._faults.settle(self.now)

    async def until_nothing(self, problems: Callable[[], Iterable[str]], within: float, invariant: str) -> None:
        """Waits until nothing is missing."""
        deadline = self.now + within
        while found := list(problems()):
            if self.now >= deadline:
                self.fail(invariant, f"not within {within:g} s: {'; '.join(found[:6])}")
                return
            await asyncio.sleep(2.0)

    async def rest(self) -> None:
        """Checks that little is written while nothing happens."""
        before = self._written.copy()
        await asyncio.sleep(REST_SECONDS)
        for key, count in self._written.items():
            if (writes := count - before[key]) > REST_WRITES:
                self.fail("no write at rest", f"{writes} writes to {key} in {REST_SECONDS:g} s")

    # -- checking ----------------------------------------------------------------------------------------------------

    def _on_write(self, resource: str, obj: Object, previous: Object | None) -> None:
        if resource in WATCHED_WRITES:
            name = f"{resource} {obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}"
            self._changes.add((name, obj["metadata"]["uid"]))
            self._written[name] += 1
        if resource == "leases.coordination.k8s.io" and previous is not None:
            self._check_lease(obj, previous)

    def _check_lease(self, obj: Object, previous: Object) -> None:
        before, after = section(previous, "spec"), section(obj, "spec")
        holder, renewed = before.get("holderIdentity"), before.get("renewTime")
        if not holder or not renewed or after.get("holderIdentity") in {holder, "", None} or not after.get("renewTime"):
            return
        age = (datetime.fromisoformat(after["renewTime"]) - datetime.fromisoformat(renewed)).total_seconds()
        if age < float(before.get("leaseDurationSeconds") or 0):
            text = f"{after['holderIdentity']} takes the lease of {holder} {age:.1f} s after its renewal"
            self.fail("no lease is taken before it has expired", text)

    def _note_hot(self, key: tuple[str, ...]) -> None:
        self.fail("no hot loop", f"{key[0]} was written more than {WRITES_PER_HOUR} times in an hour")

    async def check(self) -> None:
        """Checks the state until cancelled."""
        reported: set[tuple[str, str]] = set()
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            now, quiet, before = self.now, self.quiet_seconds, self._since
            self._since = {finding: before.get(finding, now) for finding in self.reference.check()}
            self.findings += sum(1 for finding in before if finding not in self._since)
            for finding, since in self._since.items():
                name = (finding.invariant, finding.text)
                if name not in reported and min(now - since, quiet) > finding.within + SLACK_SECONDS:
                    reported.add(name)
                    self.fail(finding.invariant, f"{finding.text}; since {now - since:.0f} s")
            for program in self.programs.controllers.values():
                for line in program.mistakes():
                    self.fail("no mistake in a log", f"{program.name}: {line[:400]}")

    async def supervise(self) -> None:
        """Starts ended processes again, as Kubernetes does, until cancelled."""
        down: dict[str, float] = {}
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            for program in self.programs.all:
                if program.is_running:
                    down.pop(program.name, None)
                elif program.name not in self.held:
                    since = down.setdefault(program.name, self.now)
                    if self.now - since >= RESTART_SECONDS:
                        self.say("kubelet", f"starts {program.name} again")
                        program.start()
