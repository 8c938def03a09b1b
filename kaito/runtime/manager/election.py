"""`Candidate`: makes the manager's leader election, in a separate thread, or in the main loop with a simulated clock.

It also makes the coordinator of the shards, which always runs in the main loop.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from kaito.runtime.client import Client, user_agent
from kaito.runtime.clock import Clock, suspend_proof_clock
from kaito.runtime.kinds import Lease
from kaito.runtime.lease import Elector, LeaseTerms, LocalLeadership, ThreadLeadership
from kaito.runtime.manager.assembly import Connection
from kaito.runtime.manager.health.loop_watchdog import LoopWatchdog
from kaito.runtime.manager.leadership import Leadership
from kaito.runtime.manager.settings import Settings
from kaito.runtime.manager.sharding import ShardCoordinator, Shards
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.metrics import Metrics
from kaito.runtime.recorder import EventRecorder


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """This process as a candidate for a lease."""

    lease: str
    identity: str
    settings: Settings
    connection: Connection
    field_manager: str
    clock: Clock
    rng: random.Random
    metrics: Metrics
    watchdog: LoopWatchdog

    @property
    def terms(self) -> LeaseTerms:
        """The lease and its times."""
        return LeaseTerms(
            name=self.lease,
            namespace=self.settings.leader_election_namespace or self.connection.namespace,
            identity=self.identity,
            duration=self.settings.lease_duration_seconds,
            renew_deadline=self.settings.renew_deadline_seconds,
            retry_period=self.settings.retry_period_seconds,
            labels={"app.kubernetes.io/managed-by": self.field_manager},
        )

    def may_renew(self) -> bool:
        """Whether the main loop works: a process that does no work must not keep others from doing it."""
        return self.watchdog.overdue < self.settings.renew_deadline_seconds

    def leadership(self) -> Leadership:
        """Makes the leader election, which does not campaign yet.

        It runs in the main loop if the connection has only one transport, as in tests.
        """
        slow = self.metrics.election_slow_path.labels(self.lease)
        leadership: Leadership
        if self.connection.connect is not None:
            leadership = ThreadLeadership(
                self.terms,
                self.connection.connect,
                clock=self.clock,
                user_agent=self._user_agent,
                field_manager=self.field_manager,
                may_renew=self.may_renew,
                on_slow_path=slow.inc,
                jitter=self.rng.random,
            )
        else:
            elector = Elector(
                self._client(),
                self.terms,
                now=_loop_time(),
                clock=self.clock,
                jitter=self.rng.random,
                may_renew=self.may_renew,
                on_slow_path=slow.inc,
            )
            leadership = LocalLeadership(elector)
        self.metrics.leader.labels(self.lease).set(0)
        self.metrics.lease_remaining.labels(self.lease).set_function(lambda: leadership.remaining)
        return leadership

    def shard_coordinator(
        self,
        shards: Shards,
        *,
        on_acquired: Callable[[], None],
        on_end: Callable[[str, BaseException | None], None],
    ) -> ShardCoordinator:
        """Makes the coordinator of the shards, which holds none yet. The arguments are those of `ShardCoordinator`."""
        return ShardCoordinator(
            shards,
            self._client(),
            self.terms,
            now=_loop_time() if self.connection.connect is None else suspend_proof_clock,
            clock=self.clock,
            jitter=self.rng.random,
            may_renew=self.may_renew,
            metrics=self.metrics,
            on_acquired=on_acquired,
            on_end=on_end,
        )

    def record(self, change: str, recorder: EventRecorder) -> None:
        """Records that this process became or stopped being the leader, as an event and in the metrics."""
        lease = Lease(metadata=ObjectMeta(name=self.lease, namespace=self.terms.namespace))
        recorder.record(lease, "Normal", "LeaderElection", f"{self.identity} {change}", action="LeaderElection")
        self.metrics.leader.labels(self.lease).set(change == "became leader")

    @property
    def _user_agent(self) -> str:
        return user_agent(f"{self.field_manager}-lease")

    def _client(self) -> Client:
        return Client(
            self.connection.transport,
            field_manager=self.field_manager,
            user_agent=self._user_agent,
            timeout=self.terms.request_timeout,
            rng=self.rng,
        )


def _loop_time() -> Callable[[], float]:
    """The running loop's clock, which can be read outside of the loop, too."""
    return asyncio.get_running_loop().time
