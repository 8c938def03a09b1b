"""`Elector`: acquires a Lease, renews it, knows how long this process certainly holds it, and releases it.

The algorithm is client-go's (`tools/leaderelection`): a lease has expired when its record has not changed for its
duration, measured by the local clock from the moment this process first saw the record. Clocks of machines may
therefore differ; only their rates must agree. Two rules are stricter. The renew deadline counts from the last success,
so it bounds how long a leader that cannot reach the API server continues. And `check` is a fence: a write is rejected
when the lease could expire before the write arrives. An elector belongs to one event loop; see `local` and `thread`.
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
"""A candidate retries after one to 1 + this many retry periods (client-go's `JitterFactor`)."""

FENCE_MARGIN_SECONDS = 3.0
"""Writes stop this long before the lease could expire: the time in which a write reaches the server."""

SHORTEST_WAIT_SECONDS = 0.001
"""Less than this before the renew deadline, no further attempt is made: a wait of the rest, which rounding may leave,
would take no time."""

RELEASED_SECONDS = 1
"""Duration of a released lease, as in client-go: other candidates acquire it without waiting."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTerms:
    """The lease, the candidate's identity, and the times in seconds."""

    name: str
    namespace: str
    identity: str
    duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0
    labels: Mapping[str, str] | None = None
    """Labels of the lease."""

    @property
    def margin(self) -> float:
        """Seconds before the possible expiry at which writes stop; at most a fifth of the duration."""
        return min(FENCE_MARGIN_SECONDS, self.duration / 5)

    @property
    def request_timeout(self) -> float:
        """Timeout of a request: half of the renew deadline, so that a renewal has time for two."""
        return max(self.renew_deadline / 2, 0.1)


@final
class Elector:
    """One candidate for a lease.

    Args:
        client: live client; its requests should not last longer than `terms.request_timeout`.
        terms: the lease and its times.
        now: a clock in seconds that never goes back. It must advance while the process is suspended or stopped.
        clock: wall time, only written into the record.
        jitter: spreads the retries.
        may_renew: called before every renewal; False when the work done under the lease is stuck.
        on_slow_path: called when a renewal had to read the lease first.
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
        """When the last successful renewal was *sent*. The server received it later, so the lease lasts at least from
        here."""
        self._is_over = False

    # -- queries; safe in any thread, because each reads single numbers ----------------------------------------------

    @property
    def remaining(self) -> float:
        """Remaining seconds in which writes are safe; 0 or less means that writes are fenced."""
        if self._is_over:
            return 0.0
        return self._renewed_at + self.terms.duration - self.terms.margin - self._now()

    def check(self) -> None:
        """Fences a write.

        Raises:
            NotLeader: the lease is not held, or could expire before the write arrives.
        """
        if self.remaining <= 0:
            lease = f"{self.terms.namespace}/{self.terms.name}"
            message = f"write rejected: {self.terms.identity} may no longer hold lease {lease}"
            raise NotLeader(message)

    @property
    def holder(self) -> str:
        """The holder of the lease when it was last read; empty if it is free."""
        return (self._record.spec.holder_identity or "") if self._record is not None else ""

    @property
    def renewal_age(self) -> float:
        """Seconds since the last successful renewal; infinite before the first."""
        return self._now() - self._renewed_at

    # -- the campaign ------------------------------------------------------------------------------------------------

    def observe(self, record: Lease, seen_at: float) -> None:
        """Records that the lease had this content at a time of the clock `now`, before the first attempt."""
        self._record, self._record_seen_at = record, seen_at

    async def try_acquire(self) -> bool:
        """Tries once to acquire or renew; False if another process holds the lease, or the request failed."""
        return await self._try_once()

    async def acquire(self) -> None:
        """Tries until this process holds the lease."""
        while not await self._try_once():
            period = self.terms.retry_period
            await asyncio.sleep(period + period * RETRY_JITTER * self._jitter())
        _log.info("became leader", lease=self.terms.name, identity=self.terms.identity)

    async def renew(self) -> str:
        """Renews until that fails for `renew_deadline` seconds, or another holds the lease. Returns the reason."""
        terms = self.terms
        try:
            while True:
                await asyncio.sleep(max(0.0, min(terms.retry_period, terms.renew_deadline - self.renewal_age)))
                if self.renewal_age >= terms.renew_deadline - SHORTEST_WAIT_SECONDS:
                    return f"not renewed for {self.renewal_age:.1f} s"
                if not self._may_renew():
                    _log.warning("lease not renewed: the main loop is blocked", lease=terms.name)
                    continue
                await self._try_within(terms.renew_deadline - self.renewal_age)
                if self.holder not in {"", terms.identity}:
                    return f"{self.holder} holds it"
        finally:
            self._is_over = True

    async def _try_within(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._try_once()
        except TimeoutError:
            _log.warning("lease request timed out", lease=self.terms.name)

    async def _try_once(self) -> bool:
        """Tries to acquire or renew. False if another process holds the lease, or the API server rejects the
        request."""
        try:
            return await self._attempt()
        except (Conflict, AlreadyExists):
            return False  # another candidate was faster; the next attempt reads its record
        except KaitoRuntimeError as error:
            _log.warning("lease request failed", lease=self.terms.name, error=str(error))
            return False

    async def _attempt(self) -> bool:
        if self.holder == self.terms.identity and self._record is not None and self.renewal_age < self.terms.duration:
            # client-go's fast path: a leader renews without reading first, one request instead of two.
            try:
                return await self._write(self._record)
            except (Conflict, NotFound):
                self._on_slow_path()  # another process changed or deleted the lease: read it
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
        # The holder's duration counts, not ours: during a rollout they may differ.
        duration_seconds = self.terms.duration if duration is None else duration
        return self._now() > self._record_seen_at + duration_seconds

    async def _write(self, current: Lease) -> bool:
        sent_at = self._now()
        self._hold(await self._client.update(self._next(current)), sent_at)
        return True

    def _next(self, current: Lease | None) -> Lease:
        """The record of the next write. `leaseTransitions` counts changes of the holder."""
        terms, now = self.terms, self._clock.now()
        spec = current.spec if current is not None else LeaseSpec()
        held = spec.holder_identity == terms.identity
        spec = spec.evolve(
            holder_identity=terms.identity,
            lease_duration_seconds=math.ceil(terms.duration),
            renew_time=now,
            acquire_time=spec.acquire_time if held and spec.acquire_time is not None else now,
            lease_transitions=(spec.lease_transitions or 0) + (0 if held or current is None else 1),
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
        """Keeps the record, and when its content was first seen.

        The comparison is of the content, not of the resource version: a write that changes only metadata does not
        extend the lease.
        """
        if self._record is None or self._record.spec.to_dict() != record.spec.to_dict():
            self._record_seen_at = self._now()
        self._record = record

    async def release(self) -> None:
        """Releases the lease, so that another process leads at once; only safe after all work under it has stopped.

        A failure is logged: the lease then expires.
        """
        self._is_over = True
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
            _log.warning("lease not released; other replicas wait for it to expire", lease=terms.name, error=str(error))
        else:
            _log.info("lease released", lease=terms.name)
