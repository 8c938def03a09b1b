"""Makes the manager's candidate for the lease: in a thread of its own, or in the loop where time is simulated."""

import asyncio
from collections.abc import Callable

from kaito.runtime.client import Client, user_agent
from kaito.runtime.clock import Clock
from kaito.runtime.lease import Elector, LeaseTerms, LocalLeadership, ThreadLeadership
from kaito.runtime.manager.assembly import Network
from kaito.runtime.manager.health.loop_watchdog import Pulse
from kaito.runtime.manager.leadership import Leadership
from kaito.runtime.manager.settings import Settings
from kaito.runtime.metrics import Metrics
from kaito.runtime.workqueue.backoff import Jitter


def make_leadership(
    lease: str,
    identity: str,
    settings: Settings,
    network: Network,
    *,
    owner: str,
    clock: Clock,
    jitter: Jitter,
    metrics: Metrics,
    pulse: Pulse,
) -> Leadership:
    """The candidate, not yet campaigning. With a transport that only exists once it shares the main loop."""
    terms = LeaseTerms(
        name=lease,
        namespace=settings.leader_election_namespace or network.namespace,
        identity=identity,
        duration=settings.lease_duration_seconds,
        renew_deadline=settings.renew_deadline_seconds,
        retry_period=settings.retry_period_seconds,
        labels={"app.kubernetes.io/managed-by": owner},
    )
    agent = user_agent(f"{owner}-lease")
    slow = metrics.election_slow_path.labels(lease)

    def may_renew() -> bool:
        return pulse.overdue < terms.renew_deadline

    leadership: Leadership
    if network.connect is not None:
        leadership = ThreadLeadership(
            terms,
            network.connect,
            user_agent=agent,
            field_manager=owner,
            may_renew=may_renew,
            on_slow_path=slow.inc,
            jitter=jitter,
        )
    else:
        client = Client(network.transport, field_manager=owner, user_agent=agent, timeout=terms.request_timeout)
        elector = Elector(
            client, terms, now=_loop_time(), clock=clock, jitter=jitter, may_renew=may_renew, on_slow_path=slow.inc
        )
        leadership = LocalLeadership(elector)
    metrics.leader.labels(lease).set(0)
    metrics.lease_remaining.labels(lease).set_function(lambda: leadership.remaining)
    return leadership


def _loop_time() -> Callable[[], float]:
    """The running loop's clock, readable outside of it too."""
    return asyncio.get_running_loop().time
