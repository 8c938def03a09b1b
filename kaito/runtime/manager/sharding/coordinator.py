"""`ShardCoordinator`: acquires, renews, hands over and releases the leases of shards, so that replicas share the work.

Every replica has a lease `<lease>-member-<hash>`, by which the others see that it is alive, and every shard has a lease
`<lease>-shard-<number>`, whose holder alone reconciles the keys of the shard. Each replica looks at all leases every
`retry_period`: it takes free shards up to its share, and hands over what it holds beyond. The leases of shards make it
safe, whatever replicas believe about each other: a write of a reconcile is fenced with the lease of its shard.

A shard is handed over after its running reconciles have ended. If they do not end in time, they are cancelled, and the
lease is left to expire: requests that they have sent may still reach the server.
"""

import asyncio
import hashlib
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Final, final

from kaito.runtime.client import Client
from kaito.runtime.clock import Clock
from kaito.runtime.controller.shard_hold import ShardHold
from kaito.runtime.errors import KaitoRuntimeError
from kaito.runtime.kinds import Lease
from kaito.runtime.lease import Elector, LeaseTerms
from kaito.runtime.logging import get_logger
from kaito.runtime.manager.sharding.declaration import Shards
from kaito.runtime.manager.sharding.membership import SeenLeases, quota
from kaito.runtime.metrics import Metrics
from kaito.runtime.tasks import TaskPool, TaskScope
from kaito.runtime.workqueue.backoff import Jitter

LABEL: Final = "kaito-runtime.dev/sharded-lease"
"""Label of the leases of members and shards; the value is the manager's lease."""

HANDOVER_SECONDS: Final = 30.0
"""Time in which running reconciles of a shard may end before it is handed over."""

CANCEL_SECONDS: Final = 5.0
"""Time in which cancelled reconciles end."""

FORGOTTEN_DURATIONS: Final = 4.0
"""After this many durations without a renewal, the lease of a replica is deleted."""

_log = get_logger(__name__)


@dataclass(slots=True)
class _Held:
    """A shard that this replica holds."""

    hold: ShardHold
    elector: Elector
    surplus: asyncio.Event
    """Set to hand the shard over."""


@final
class ShardCoordinator:
    """Holds the share of this replica.

    Args:
        shards: the shards.
        client: live client, for the leases; not fenced.
        terms: the manager's lease, this replica's identity, and the times.
        now: a clock in seconds that never goes back and counts while the process is suspended.
        clock: wall time, only written into the leases.
        jitter: spreads the requests.
        may_renew: called before every renewal; False when the main loop is blocked.
        metrics: shows the number of held shards.
        on_acquired: called when shards were acquired: all keys have to be queued again.
        on_end: called with the name and the error of a task that failed.
    """

    def __init__(
        self,
        shards: Shards,
        client: Client,
        terms: LeaseTerms,
        *,
        now: Callable[[], float],
        clock: Clock,
        jitter: Jitter,
        may_renew: Callable[[], bool],
        metrics: Metrics,
        on_acquired: Callable[[], None],
        on_end: Callable[[str, BaseException | None], None],
    ) -> None:
        self._shards = shards
        self._client = client
        self._terms = replace(terms, labels={**(terms.labels or {}), LABEL: terms.name})
        self._now = now
        self._clock = clock
        self._jitter = jitter
        self._may_renew = may_renew
        self._gauge = metrics.shards_held.labels(terms.name)
        self._on_acquired = on_acquired
        self._on_end = on_end
        self._seen = SeenLeases(now)
        self._held: dict[int, _Held] = {}
        self._pool = TaskPool(f"{terms.name}.shards", on_end=self._task_ended)
        digest = hashlib.blake2b(terms.identity.encode(), digest_size=5).hexdigest()
        self._members = f"{terms.name}-member-"
        self._member = self._elector(f"{self._members}{digest}", terms.retry_period)

    # -- for the engines and the manager -----------------------------------------------------------------------------

    def hold_of(self, key: Hashable) -> ShardHold | None:
        """Returns the hold of the key's shard; None if this replica does not hold it, or hands it over."""
        held = self._held.get(self._shards.shard_of(key))
        return None if held is None or held.surplus.is_set() else held.hold

    @property
    def held(self) -> frozenset[int]:
        """The numbers of the shards that this replica holds."""
        return frozenset(self._held)

    async def start(self) -> None:
        """Starts to share the work; returns before a shard is acquired."""
        self._gauge.set(0)
        self._pool.spawn(self._run(), name="coordinator")

    async def stop(self, *, release: bool) -> None:
        """Releases the shards if that is safe, which it is after all reconciles have ended; otherwise they expire."""
        await self._pool.stop(CANCEL_SECONDS)
        held, self._held = dict(self._held), {}
        self._gauge.set(0)
        if release:
            free = [each.elector.release() for each in held.values() if each.hold.is_idle]
            await asyncio.gather(*free, self._leave())

    async def _leave(self) -> None:
        try:
            lease = await self._client.find(Lease, self._member.terms.name, self._member.terms.namespace)
            if lease is not None:
                await self._client.delete(lease)
        except KaitoRuntimeError as error:
            _log.warning("lease of this replica not deleted; it expires", error=str(error))

    def _task_ended(self, name: str, error: BaseException | None) -> None:
        if error is not None:
            self._on_end(name, error)

    # -- sharing -----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._terms.renew_deadline):
                    await self._share()
            except (KaitoRuntimeError, TimeoutError) as error:
                _log.warning("shards not compared", lease=self._terms.name, error=str(error) or "timeout")
            period = self._terms.retry_period
            await asyncio.sleep(period * (0.9 + self._jitter() / 5))

    async def _share(self) -> None:
        """Compares the share of this replica with what it holds, and changes what it holds."""
        if not self._may_renew() or not await self._member.try_acquire():
            return
        leases = await self._client.list(Lease, namespace=self._terms.namespace, labels={LABEL: self._terms.name})
        self._seen.update(leases)
        identity = self._terms.identity
        members = self._seen.live_holders(self._members)
        share = quota(identity, members, self._shards.count)
        keeping = [shard for shard, held in self._held.items() if not held.surplus.is_set()]
        for shard in sorted(keeping)[share:]:
            self._held[shard].surplus.set()
        await self._acquire_free(max(0, share - len(keeping)))
        if identity == min({identity, *members}):
            await self._forget()

    def _free(self) -> list[int]:
        """Returns the shards without a holder, in an order that differs between replicas."""
        count = self._shards.count
        start = int(self._member.terms.name.rpartition("-")[2], 16) % count
        order = [(start + number) % count for number in range(count)]
        return [shard for shard in order if shard not in self._held and not self._seen.is_live(self._lease_of(shard))]

    def _lease_of(self, shard: int) -> str:
        return f"{self._terms.name}-shard-{shard}"

    def _elector(self, name: str, period: float) -> Elector:
        return Elector(
            self._client,
            replace(self._terms, name=name, retry_period=period),
            now=self._now,
            clock=self._clock,
            jitter=self._jitter,
            may_renew=self._may_renew,
        )

    async def _acquire_free(self, wanted: int) -> None:
        """Acquires free shards, and queues all keys once for all of them, also if the time for the rest is over."""
        acquired = False
        try:
            for shard in self._free()[:wanted]:
                acquired |= await self._acquire(shard)
        finally:
            if acquired:
                self._on_acquired()

    async def _acquire(self, shard: int) -> bool:
        """Tries to acquire a shard; False if another replica was faster."""
        elector = self._elector(self._lease_of(shard), self._terms.renew_deadline / 2)
        seen = self._seen.find(self._lease_of(shard))
        if seen is not None:
            elector.observe(seen.lease, seen.at)
        if not await elector.try_acquire():
            return False
        held = _Held(ShardHold(shard, elector.check), elector, asyncio.Event())
        self._held[shard] = held
        self._gauge.set(len(self._held))
        _log.info("shard acquired", lease=self._terms.name, shard=shard)
        self._pool.spawn(self._keep(shard, held), name=f"shard-{shard}")
        return True

    async def _forget(self) -> None:
        """Deletes the leases of replicas that have ended long ago."""
        for lease in self._seen.expired(self._members, FORGOTTEN_DURATIONS):
            await self._client.delete(lease, if_unchanged=True)

    # -- one shard ---------------------------------------------------------------------------------------------------

    async def _keep(self, shard: int, held: _Held) -> None:
        """Renews the lease of a shard until it is handed over or lost."""
        async with TaskScope(f"shard-{shard}") as scope:
            renewal = scope.spawn(held.elector.renew(), name="renewal")
            surplus = scope.spawn(held.surplus.wait(), name="surplus")
            await asyncio.wait({renewal, surplus}, return_when=asyncio.FIRST_COMPLETED)
            if not renewal.done():
                idle = scope.spawn(held.hold.wait_idle(HANDOVER_SECONDS), name="idle")
                await asyncio.wait({renewal, idle}, return_when=asyncio.FIRST_COMPLETED)
            reason = renewal.result() if renewal.done() else ""
        self._held.pop(shard, None)
        self._gauge.set(len(self._held))
        if not reason and held.hold.is_idle:
            await held.elector.release()
            _log.info("shard handed over", lease=self._terms.name, shard=shard)
            return
        held.hold.end()
        reason = reason or f"its reconciles did not end in {HANDOVER_SECONDS:g} s"
        _log.warning("shard given up, its lease expires", lease=self._terms.name, shard=shard, reason=reason)
