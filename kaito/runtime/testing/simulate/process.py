"""Simulated processes: replicas of an operator that crash, are suspended, lose their network, and are restarted.

A crash takes effect at an arbitrary `await` of any task of the process, or right after its n-th write, of which it does
not receive the response. From then on nothing that it does reaches a server. A suspended process executes nothing,
while leases expire and others continue. A process that ends is started again after `RESTART_SECONDS`, as by a
kubelet.
"""

import asyncio
import contextvars
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, final

from kaito.runtime.clock import Clock, monotonic
from kaito.runtime.manager import Manager, Settings
from kaito.runtime.testing.simulate.counts import Reconciles
from kaito.runtime.testing.simulate.network import Connection, Observer, ProcessCrashed
from kaito.runtime.testing.simulate.steps import Scenario
from kaito.runtime.testing.simulate.wall_clock import ProcessClock
from kaito.runtime.testing.virtual import VirtualTimeLoop, owner
from kaito.runtime.tracing import Tracer

RESTART_SECONDS: Final = 10.0
"""First delay of a kubelet's restarts (CrashLoopBackOff)."""

START_SECONDS: Final = 10.0
"""Time from the start of a process until it works."""

LEASE_SECONDS: Final = (100.0, 70.0, 20.0)
"""Duration, renew deadline and retry period: longer than the defaults, because half of the requests were renewals."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """What a replica of an operator is started with.

    Attributes:
        process: the process; connect it to other systems with `Process.check_alive` and `Process.count_write`.
        transport: its connection to the API server.
        settings: settings of its manager: an identity of its own, no HTTP servers.
        clock: wall time of its machine; a fault may set it.
        rng: random generator of delays.
        tracer: counts its reconciles.
    """

    process: "Process"
    transport: Connection
    settings: Settings
    clock: Clock
    rng: random.Random
    tracer: Tracer


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """An operator in a simulation.

    Attributes:
        name: name of its processes, which get a number.
        manager: builds the manager of one replica.
        replicas: number of replicas.
        lease: name of the lease in the namespace `default`; empty if every replica writes.
    """

    name: str
    manager: Callable[[Replica], Manager]
    replicas: int = 2
    lease: str = ""

    @property
    def processes(self) -> list[str]:
        """Names of the processes."""
        return [f"{self.name}-{number}" for number in range(self.replicas)]


class Supervisor(Observer, Protocol):
    """The run that a process belongs to."""

    scenario: Scenario
    reconciles: Reconciles

    def stored(self, resource: str) -> dict[tuple[str, str], dict[str, Any]]:
        """Returns the objects of a resource in the server, by namespace and name."""
        ...

    def note_exit(self, process: Any, error: BaseException) -> None:
        """Checks why a process has ended."""
        ...

    def end_after(self, seconds: float, end: Callable[[], None], *, disturbs: float | None = None) -> None:
        """Ends a fault after so many seconds."""
        ...

    def fault_lasts(self, seconds: float) -> None:
        """Declares that a fault has effects for so long from now."""
        ...


@final
class Process:
    """One replica, with its restarts."""

    def __init__(self, run: Supervisor, operator: Operator, number: int) -> None:
        self.operator: Operator = operator
        self.name: str = operator.processes[number]
        self.identity: str = ""
        """Identity of the current start in the lease."""
        self.starts: int = 0
        self.is_up: bool = False
        self.down_until: float = 0.0
        """Virtual time of the next start, of a process that has ended."""
        self.is_suspended: bool = False
        self.is_cut: bool = False
        """Whether the process cannot reach the API server, also after a restart."""
        self.is_token_expired: bool = False
        """Whether the API server rejects its credentials, also after a restart."""
        self.is_date_hidden: bool = False
        """Whether responses contain no time, also after a restart."""
        self.clock: ProcessClock = ProcessClock(run.world.clock)
        """Wall clock of its machine, also after a restart."""
        self._run = run
        self._number = number
        self._crash_after: int | None = None
        self._suspend_after = 0
        self._suspend_seconds = 0.0
        self._task: asyncio.Task[None] | None = None
        self._connection: Connection | None = None
        self._alive = [False]
        self._work: asyncio.Task[None] | None = None
        self._down_seconds = RESTART_SECONDS

    def __str__(self) -> str:
        return self.name

    @property
    def operator_name(self) -> str:
        """Name of the operator that the process is a replica of."""
        return self.operator.name

    # -- life --------------------------------------------------------------------------------------------------------

    async def supervise(self) -> None:
        """Runs the process, and starts it again whenever it ends, until cancelled."""
        while True:
            context = contextvars.copy_context()
            context.run(owner.set, self)
            loop = asyncio.get_running_loop()
            self._work = context.run(loop.create_task, self._serve(), name=f"process.{self.name}")
            try:
                await asyncio.wait([self._work])
            finally:
                self._work.cancel()
                await asyncio.wait([self._work])
                error = None if self._work.cancelled() else self._work.exception()
            if error is not None:
                self._run.trace.line(self.name, f"exits: {type(error).__name__}: {error}")
                self._run.note_exit(self, error)
            down, self._down_seconds = self._down_seconds, RESTART_SECONDS
            self.down_until = monotonic() + down
            await asyncio.sleep(down)

    async def _serve(self) -> None:
        run = self._run
        self.starts += 1
        self.identity = f"{self.name}_{self.starts}"
        self._alive = alive = [True]
        self._crash_after = None
        self._suspend_after = 0
        seed = f"{run.scenario.seed}-{self.identity}"
        connection = self._connection = Connection(self, run, alive, random.Random(f"network-{seed}"))  # noqa: S311
        duration, deadline, period = LEASE_SECONDS
        settings = Settings(
            metrics_bind_address="0",
            health_probe_bind_address="0",
            leader_elect=bool(self.operator.lease),
            leader_election_namespace="default",
            identity=self.identity,
            graceful_shutdown_seconds=10.0,
            lease_duration_seconds=duration,
            renew_deadline_seconds=deadline,
            retry_period_seconds=period,
        )
        replica = Replica(
            process=self,
            transport=connection,
            settings=settings,
            clock=self.clock,
            rng=random.Random(f"delays-{seed}"),  # noqa: S311 - repeatable
            tracer=run.reconciles.of(self.name),
        )
        manager = self.operator.manager(replica)
        self.is_up = True
        run.trace.line(self.name, "starts")
        try:
            async with manager:
                await manager.wait_stop()
        finally:
            self.is_up = False
            alive[0] = False
            await connection.close()

    def crash(self, down_seconds: float) -> None:
        """Ends the process at the `await` at which each of its tasks is; it starts again after `down_seconds`."""
        self.resume()
        self._alive[0] = False
        self._down_seconds = down_seconds
        self._run.trace.line(self.name, "crashes")
        if self._connection is not None:
            self._connection.reset()
        if self._work is not None:
            self._work.cancel()

    def crash_after(self, writes: int, down_seconds: float) -> None:
        """Ends the process when its n-th write from now has taken effect, without a response to it; 0 for never."""
        self._crash_after, self._down_seconds = (writes, down_seconds) if writes else (None, RESTART_SECONDS)

    def stop(self) -> None:
        """Stops the process in order, as SIGTERM does; it starts again."""
        self.resume()
        if self._work is not None and self.is_up:
            self._run.trace.line(self.name, "is stopped in order")
            self._work.cancel()

    def suspend(self) -> None:
        """Suspends the process (SIGSTOP, or a machine that does not respond)."""
        if not self.is_suspended:
            self.is_suspended = True
            self._loop.hold(self)

    def suspend_after(self, steps: int, seconds: float) -> None:
        """Suspends the process for `seconds` when its n-th step from now has taken effect; 0 for never.

        Steps are writes to the API server, and what `count_step` counts.
        """
        self._suspend_after, self._suspend_seconds = steps, seconds

    def resume(self) -> None:
        """Continues the process."""
        if self.is_suspended:
            self.is_suspended = False
            self._loop.resume(self)

    def switch_off(self) -> None:
        """Ends every connection without a trace; the run is over."""
        self._alive[0] = False
        if self._connection is not None:
            self._connection.reset()

    @property
    def is_alive(self) -> bool:
        """Whether the current start of the process has not crashed."""
        return self._alive[0]

    @property
    def connection(self) -> Connection | None:
        """The connection of the current start to the API server."""
        return self._connection

    @property
    def _loop(self) -> VirtualTimeLoop:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)  # noqa: S101 - a run creates it
        return loop

    # -- for connections to other systems ----------------------------------------------------------------------------

    def liveness(self) -> Callable[[], None]:
        """Returns a check for connections of the current start; it raises `ProcessCrashed` after that has crashed."""
        alive = self._alive

        def check() -> None:
            if not alive[0]:
                message = f"{self.name} has crashed"
                raise ProcessCrashed(message)

        return check

    def count_write(self) -> None:
        """Counts a write that has taken effect at a server; the process may crash or be suspended here."""
        self.count_step()
        if self._crash_after is None:
            return
        self._crash_after -= 1
        if self._crash_after <= 0:
            self._crash_after = None
            self._run.fault_lasts(self._down_seconds + START_SECONDS)
            self.crash(self._down_seconds)

    def count_step(self) -> None:
        """Counts a request to another system than the API server; the process may be suspended here."""
        if not self._suspend_after:
            return
        self._suspend_after -= 1
        if not self._suspend_after:
            self.suspend()
            # Outside of the process, whose own timers do not fire while it is suspended.
            contextvars.Context().run(self._run.end_after, self._suspend_seconds, self.resume)

    def holds_lease(self) -> bool:
        """Whether the lease in the cluster names this start of the process; true without a lease."""
        if not self.operator.lease:
            return True
        lease = self._run.stored("leases.coordination.k8s.io").get(("default", self.operator.lease))
        spec: dict[str, Any] = lease.get("spec") or {} if lease is not None else {}
        return spec.get("holderIdentity") == self.identity
