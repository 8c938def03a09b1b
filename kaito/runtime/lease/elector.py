"""The election itself: acquire a Lease, renew it, know for how long it is surely ours, give it back.

client-go's algorithm (`tools/leaderelection`): whether a lease has expired is judged by local observation, from the
moment this process last saw the record change, so clocks may differ between machines; only their rates must agree. Two
things are stricter here. Renewal is measured from the last success, so `renew_deadline` bounds how long a leader
without the API server believes in itself. And `check` is a fence: no write is sent when the lease could have expired by
the time it arrives. One object, one event loop; `local` and `thread` say which.
"""

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

from kaito.runtime.client import Client
from kaito.runtime.clock import Clock
from kaito.runtime.errors import AlreadyExists, ApiError, Conflict, KaitoRuntimeError, NotFound, NotLeader
from kaito.runtime.kinds import Lease, LeaseSpec
from kaito.runtime.logging import get_logger
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.workqueue.backoff import Jitter

RETRY_JITTER = 1.2
"""A candidate waits between one and 1 + this many retry periods (client-go's `JitterFactor`)."""

FENCE_MARGIN_SECONDS = 3.0
"""Writes stop this long before the lease could expire: time for a write to reach the server."""

RELEASED_SECONDS = 1
"""Duration written into a released lease, as client-go does: nobody waits for it."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTerms:
    """Which lease, for whom, and the times in seconds."""

    name: str
    namespace: str
    identity: str
    duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0
    labels: Mapping[str, str] | None = None
    """Put on the lease, for whoever looks for it."""

    @property
    def margin(self) -> float:
        """Seconds before the possible expiry at which writes stop; short leases get a fifth of their duration."""
        return min(FENCE_MARGIN_SECONDS, self.duration / 5)

    @property
    def request_timeout(self) -> float:
        """A request may take half the renew deadline, so that a renewal has time for two."""
        return max(self.renew_deadline / 2, 0.1)


@final
class Elector:
    """One candidate.

    Args:
        client: live client; its requests should not last longer than `terms.request_timeout`.
        terms: what is contended for.
        now: a clock in seconds that never goes back. It must go on while the process sleeps or is stopped.
        clock: wall time, only written into the record.
        jitter: randomness of the waits.
        may_renew: asked before every renewal; False when the work done under the lease is stuck.
        on_slow_path: told when a renewal had to read the lease first.
    """

    def __init__(
        self,
        client: Client,
        terms: LeaseTerms,
        *,
        now: Callable[[], float],
        clock: Clock,
        jitter: Jitter,
        may_renew: Callable[[], bool] = lambda: True,
        on_slow_path: Callable[[], None] = lambda: None,
    ) -> None:
        self.terms = terms
        self._client = client
        self._now = now
        self._clock = clock
        self._jitter = jitter
        self._may_renew = may_renew
        self._on_slow_path = on_slow_path
        self._record: Lease | None = None
        self._record_seen_at = -math.inf
        self._renewed_at = -math.inf
        """When the last renewal known to have succeeded was *sent*: the server counts from later."""
        self._gave_up = False

    # -- what others ask; from any thread, for these only read single numbers ---------------------------------------

    @property
    def remaining(self) -> float:
        """Seconds for which writes are surely still those of the leader; 0 or less: none are."""
        if self._gave_up:
            return 0.0
        return self._renewed_at + self.terms.duration - self.terms.margin - self._now()

    def check(self) -> None:
        """The fence.

        Raises:
            NotLeader: the lease is not held, or could expire before a write arrives.
        """
        if self.remaining <= 0:
            message = (
                f"{self.terms.identity} does not surely hold lease {self.terms.namespace}/{self.terms.name}: "
                f"the write was not sent"
            )
            raise NotLeader(message)

    @property
    def holder(self) -> str:
        """Who holds the lease, as last seen; empty for nobody."""
        return (self._record.spec.holder_identity or "") if self._record is not None else ""

    @property
    def renewal_age(self) -> float:
        """Seconds since the last successful renewal; infinite before the first."""
        return self._now() - self._renewed_at

    # -- the campaign ------------------------------------------------------------------------------------------------

    async def acquire(self) -> None:
        """Try until the lease is ours."""
        while not await self._try():
            period = self.terms.retry_period
            await asyncio.sleep(period + period * RETRY_JITTER * self._jitter())
        _log.info("became leader", lease=self.terms.name, identity=self.terms.identity)

    async def renew(self) -> str:
        """Renew until that fails for `renew_deadline` seconds, or another holds the lease. Returns the reason."""
        terms = self.terms
        try:
            while True:
                await asyncio.sleep(max(0.0, min(terms.retry_period, terms.renew_deadline - self.renewal_age)))
                if self.renewal_age >= terms.renew_deadline:
                    return f"not renewed for {self.renewal_age:.1f} s"
                if not self._may_renew():
                    _log.warning("not renewing the lease: the main loop is blocked", lease=terms.name)
                    continue
                await self._try_until(terms.renew_deadline - self.renewal_age)
                if self.holder not in {"", terms.identity}:
                    return f"{self.holder} holds it"
        finally:
            self._gave_up = True

    async def _try_until(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._try()
        except TimeoutError:
            _log.warning("the lease's server does not answer", lease=self.terms.name)

    async def _try(self) -> bool:
        """One attempt to acquire or renew. False when another holds the lease or the server does not play along."""
        try:
            return await self._attempt()
        except (Conflict, AlreadyExists):
            return False  # somebody was faster; the next attempt reads what they wrote
        except KaitoRuntimeError as error:
            _log.warning("no answer about the lease", lease=self.terms.name, error=str(error))
            return False

    async def _attempt(self) -> bool:
        if self.holder == self.terms.identity and self._record is not None and self.renewal_age < self.terms.duration:
            try:
                return await self._write(self._record)
            except (Conflict, NotFound):
                self._on_slow_path()  # changed by another hand, or deleted: read it
        terms = self.terms
        current = await self._client.find(Lease, terms.name, terms.namespace)
        if current is None:
            sent_at = self._now()
            self._hold(await self._client.create(self._next(None)), sent_at)
            return True
        self._observe(current)
        if not self._is_free(current):
            return False
        return await self._write(current)

    def _is_free(self, lease: Lease) -> bool:
        holder = lease.spec.holder_identity or ""
        if holder in {"", self.terms.identity}:
            return True
        duration = lease.spec.lease_duration_seconds
        lasts = self.terms.duration if duration is None else duration
        return self._now() > self._record_seen_at + lasts

    async def _write(self, current: Lease) -> bool:
        sent_at = self._now()
        self._hold(await self._client.update(self._next(current)), sent_at)
        return True

    def _next(self, current: Lease | None) -> Lease:
        """The record as it is to become; transitions count changes of holder."""
        terms, now = self.terms, self._clock.now()
        spec = current.spec if current is not None else LeaseSpec()
        ours = spec.holder_identity == terms.identity
        spec = spec.evolve(
            holder_identity=terms.identity,
            lease_duration_seconds=math.ceil(terms.duration),
            renew_time=now,
            acquire_time=spec.acquire_time if ours and spec.acquire_time is not None else now,
            lease_transitions=(spec.lease_transitions or 0) + (0 if ours or current is None else 1),
        )
        if current is None:
            metadata = ObjectMeta(name=terms.name, namespace=terms.namespace, labels=dict(terms.labels or {}))
            return Lease(metadata=metadata, spec=spec)
        labels = current.labels | dict(terms.labels or {})
        if labels != current.labels:
            current = current.with_metadata(labels=labels)
        return current.evolve(spec=spec)

    def _hold(self, record: Lease, sent_at: float) -> None:
        self._observe(record)
        self._renewed_at = sent_at

    def _observe(self, record: Lease) -> None:
        """Remember what the record says, and when it was first seen saying that."""
        if self._record is None or self._record.spec.to_dict() != record.spec.to_dict():
            self._record_seen_at = self._now()
        self._record = record

    async def release(self) -> None:
        """Hand the lease over at once. Only after everything done under it has stopped. Failure only costs waiting."""
        self._gave_up = True
        terms = self.terms
        try:
            current = await self._client.find(Lease, terms.name, terms.namespace)
            if current is None or current.spec.holder_identity != terms.identity:
                return
            spec = current.spec.evolve(
                holder_identity="", lease_duration_seconds=RELEASED_SECONDS, renew_time=self._clock.now()
            )
            await self._client.update(current.evolve(spec=spec))
        except (ApiError, KaitoRuntimeError) as error:
            _log.warning("the lease was not released, others wait for its end", lease=terms.name, error=str(error))
        else:
            _log.info("released the lease", lease=terms.name)
