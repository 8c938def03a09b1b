"""Makes the manager's leader election: in a separate thread, or in the main loop with a simulated clock."""

import asyncio
import random
from collections.abc import Callable

from kaito.runtime.client import Client, user_agent
from kaito.runtime.clock import Clock
from kaito.runtime.lease import Elector, LeaseTerms, LocalLeadership, ThreadLeadership
from kaito.runtime.manager.assembly import Connection
from kaito.runtime.manager.health.loop_watchdog import LoopWatchdog
from kaito.runtime.manager.leadership import Leadership
from kaito.runtime.manager.settings import Settings
from kaito.runtime.metrics import Metrics


def make_leadership(
    lease: str,
    identity: str,
    settings: Settings,
    connection: Connection,
    *,
    field_manager: str,
    clock: Clock,
    rng: random.Random,
    metrics: Metrics,
    watchdog: LoopWatchdog,
) -> Leadership:
    """Make the candidate, which does not campaign yet.

    It runs in the main loop if the connection has only one transport, as in tests.
    """
    terms = LeaseTerms(
        name=lease,
        namespace=settings.leader_election_namespace or connection.namespace,
        identity=identity,
        duration=settings.lease_duration_seconds,
        renew_deadline=settings.renew_deadline_seconds,
        retry_period=settings.retry_period_seconds,
        labels={"app.kubernetes.io/managed-by": field_manager},
    )
    agent = user_agent(f"{field_manager}-lease")
    slow = metrics.election_slow_path.labels(lease)

    def may_renew() -> bool:
        return watchdog.overdue < terms.renew_deadline

    leadership: Leadership
    if connection.connect is not None:
        leadership = ThreadLeadership(
            terms,
            connection.connect,
            user_agent=agent,
            field_manager=field_manager,
            may_renew=may_renew,
            on_slow_path=slow.inc,
            jitter=rng.random,
        )
    else:
        client = Client(
            connection.transport, field_manager=field_manager, user_agent=agent, timeout=terms.request_timeout, rng=rng
        )
        elector = Elector(
            client, terms, now=_loop_time(), clock=clock, jitter=rng.random, may_renew=may_renew, on_slow_path=slow.inc
        )
        leadership = LocalLeadership(elector)
    metrics.leader.labels(lease).set(0)
    metrics.lease_remaining.labels(lease).set_function(lambda: leadership.remaining)
    return leadership


def _loop_time() -> Callable[[], float]:
    """The running loop's clock, which can be read outside of the loop, too."""
    return asyncio.get_running_loop().time
