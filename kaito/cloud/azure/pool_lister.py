"""Reads agent pools by shared lists: one list at a time answers all concurrent reads of single pools.

A read waits for the next list that starts after it. Such a list is as recent as a GET of the pool would be, also for a
pool that does not exist. Pools with a running operation (creation, update, deletion) are tracked: while `watch` runs,
lists are repeated at a growing interval, reads of tracked pools return the last list, and changes are reported.

Lists use the rate limit that deletions need as well (60 requests at once, then 1 per second; a list costs one request
per page). The interval between lists therefore also depends on the tokens that are left.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, final

from kaito.cloud.errors import CloudError, CloudUnavailable
from kaito.cloud.provider import Instance
from kaito.runtime.clock import monotonic
from kaito.runtime.logging import get_logger
from kaito.runtime.tasks import TaskPool
from kaito.runtime.token_bucket import SMALLEST_SECONDS, TokenBucket

log = get_logger(__name__)

UNPACED_TOKENS: Final = 48.0
"""With this many tokens left, a read starts a list at once."""

MIN_LIST_INTERVAL_SECONDS: Final = 0.25
"""Between the starts of two lists while more than the reserve is left."""

MIN_WATCH_INTERVAL_SECONDS: Final = 0.5
"""Between two lists that no read waits for, directly after a change."""

FAST_WATCH_TOKENS: Final = 40.0
"""Below this many tokens, lists that no read waits for use at most the refill."""

WATCH_LIST_PAGES: Final = 1.0
"""Pages of a list that no read waits for: it ends at the page with the last tracked pool."""

MAX_WATCH_INTERVAL_SECONDS: Final = 10.0
WATCH_INTERVAL_FACTOR: Final = 0.1
"""Interval of lists that no read waits for, as a part of the time since the last change, within the limits above."""

RESERVED_TOKENS: Final = 20.0
"""Tokens that lists leave for deletions and other reads."""

LIST_PAGES: Final = 2
"""Pages of a list of up to 100 pools: recorded lists end with an empty page."""

RESERVED_REFILL_SHARE: Final = 0.5
"""Part of the refill that lists use if only the reserve is left."""

CONTENDED_REFILL_SHARE: Final = 0.1
"""Part of the refill that lists use while other requests wait."""

FIRST_RETRY_SECONDS: Final = 5.0
MAX_RETRY_SECONDS: Final = 60.0

ALL_POOLS: Final = ""
"""Stands for all pools among the names that reads wait for; a pool cannot have an empty name."""

SETTLED_TTL_SECONDS: Final = 5.0
"""How long the list that reported a change also answers the read that the report causes."""

TRACKING_TTL_SECONDS: Final = 900.0
"""A pool that is not read for this long is not tracked any more."""

IN_PROGRESS: Final = frozenset({"creating", "updating", "deleting"})

OnChange = Callable[[str], None]
"""Called with the name of a pool whose state has changed."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The result of one list."""

    number: int
    started_at: float
    pools: Mapping[str, Instance]


@dataclass(frozen=True, slots=True)
class TrackedPool:
    """A pool with a running operation, as last seen."""

    instance: Instance
    since: float
    """Lists that started earlier are ignored."""
    read_at: float


@dataclass(frozen=True, slots=True)
class SettledPool:
    """A pool whose operation has ended; None if the pool does not exist any more."""

    instance: Instance | None
    reported_at: float


@dataclass(frozen=True, slots=True)
class ListRequest:
    """Callbacks of a function that reads a list page by page."""

    on_start: Callable[[], None]
    """Called immediately before the first request is sent."""
    is_complete: Callable[[Mapping[str, Instance]], bool]
    """Whether the pages so far answer all waiting reads, so that the next page is not needed."""


ListPools = Callable[[ListRequest], Awaitable[Mapping[str, Instance]]]


@final
class PoolLister:
    """Shares lists of agent pools between concurrent reads, and watches pools with a running operation."""

    def __init__(self, list_pools: ListPools, bucket: TokenBucket) -> None:
        self._list_pools = list_pools
        self._bucket = bucket
        self._tasks = TaskPool("agent-pools", on_end=_ignore_end)
        self._task: asyncio.Task[Listing] | None = None
        self._number = 0
        self._started_at: float | None = None
        self._has_failed = False
        self._is_closed = False
        self._tracked: dict[str, TrackedPool] = {}
        self._settled: dict[str, SettledPool] = {}
        self._listed: Mapping[str, Instance] = {}
        """The pools of the last list."""
        self._watchers: list[OnChange] = []
        self._changed_at = 0.0
        self._has_tracked = asyncio.Event()
        self._waiting: Counter[str] = Counter()
        """Number of waiting reads by name of the pool."""

    async def get(self, name: str) -> Instance | None:
        """Reads a pool: a tracked one from the last list, others by the next list.

        Raises:
            CloudError: the list failed.
        """
        if self._watchers and not self._has_failed:
            tracked = self._tracked.get(name)
            if tracked is not None:
                self._tracked[name] = replace(tracked, read_at=monotonic())
                return tracked.instance
            settled = self._settled.get(name)
            if settled is not None and monotonic() - settled.reported_at < SETTLED_TTL_SECONDS:
                return settled.instance
        listing = await self._next_listing_with(name)
        found = listing.pools.get(name)
        if found is not None and found.state in IN_PROGRESS:
            self.track(found, since=listing.started_at)
        return found

    async def all(self) -> Mapping[str, Instance]:
        """Reads all pools by the next list that starts after this call; concurrent callers share it.

        Raises:
            CloudError: the list failed.
        """
        return (await self._next_listing_with(ALL_POOLS)).pools

    async def _next_listing_with(self, name: str) -> Listing:
        """The next listing that starts after this call; it has the pool, or all pages."""
        self._waiting[name] += 1
        try:
            return await self._next_listing()
        finally:
            self._waiting[name] -= 1
            if not self._waiting[name]:
                del self._waiting[name]

    async def _next_listing(self) -> Listing:
        last_number = self._number
        while True:
            if self._task is None or self._task.done():
                self._task = self._tasks.spawn(self._list(), name="list")
            try:
                # Shielded: a caller that is cancelled must not cancel the list of the others.
                listing = await asyncio.shield(self._task)
            except asyncio.CancelledError:
                if self._is_closed and not is_cancelling():
                    raise CloudUnavailable("the connection to Azure is closed: the process stops") from None
                raise
            except CloudError:
                if self._number > last_number:
                    raise
                continue  # the failed list started before this read
            if listing.number > last_number:
                return listing

    def track(self, instance: Instance, *, since: float | None = None) -> None:
        """Tracks a pool with a running operation, which this process started or found."""
        now = monotonic()
        self._settled.pop(instance.name, None)
        self._tracked[instance.name] = TrackedPool(instance, now if since is None else since, now)
        self._changed_at = now
        self._has_tracked.set()

    def track_deletion(self, name: str) -> None:
        """Tracks a pool whose deletion was accepted, with the owner that the last list contains.

        Without the owner, the claim would take it for the pool of another claim, and would not wait for its deletion.
        """
        tracked = self._tracked.get(name)
        listed = self._listed.get(name) or Instance(name=name, state="deleting", instance_type="")
        instance = tracked.instance if tracked is not None else listed
        self.track(replace(instance, state="deleting"))

    async def watch(self, on_change: OnChange) -> None:
        """Repeats lists while pools are tracked, and reports their changes, until cancelled."""
        self._watchers.append(on_change)
        failures = 0
        try:
            while True:
                await self._has_tracked.wait()
                await self._wait_until_due()
                if not self._tracked:
                    self._has_tracked.clear()
                    continue
                try:
                    await self._next_listing()
                    failures = 0
                except CloudError as error:
                    failures += 1
                    wait = min(FIRST_RETRY_SECONDS * 2 ** min(failures - 1, 10), MAX_RETRY_SECONDS)
                    log.warning("listing agent pools failed, retrying", error=str(error), failures=failures)
                    await asyncio.sleep(max(wait, error.retry_after or 0.0))
        finally:
            self._watchers.remove(on_change)

    async def close(self) -> None:
        """Cancels a list in flight; reads that wait for it fail."""
        self._is_closed = True
        self._tasks.cancel()
        await self._tasks.stop(None)

    async def _wait_until_due(self) -> None:
        """Waits for the watch interval after the latest list; lists for reads may start while this waits."""
        while True:
            wait = self._watch_interval_seconds() - self._seconds_since_start()
            if wait <= SMALLEST_SECONDS:
                return
            await asyncio.sleep(wait)

    def _seconds_since_start(self) -> float:
        return monotonic() - self._started_at if self._started_at is not None else MAX_WATCH_INTERVAL_SECONDS

    def _watch_interval_seconds(self) -> float:
        since_change = monotonic() - self._changed_at
        is_fast = self._bucket.tokens >= FAST_WATCH_TOKENS
        shortest = MIN_WATCH_INTERVAL_SECONDS if is_fast else WATCH_LIST_PAGES / self._bucket.rate
        interval = min(max(shortest, since_change * WATCH_INTERVAL_FACTOR), MAX_WATCH_INTERVAL_SECONDS)
        return max(interval, self._list_interval_seconds())

    def _list_interval_seconds(self) -> float:
        """Shortest interval between two lists that leaves enough tokens for other requests."""
        if self._bucket.waiting:
            return LIST_PAGES / self._bucket.rate / CONTENDED_REFILL_SHARE
        if self._bucket.tokens <= RESERVED_TOKENS:
            return WATCH_LIST_PAGES / self._bucket.rate / RESERVED_REFILL_SHARE
        return 0.0 if self._bucket.tokens >= UNPACED_TOKENS else MIN_LIST_INTERVAL_SECONDS

    async def _list(self) -> Listing:
        """Waits until the rate limit allows a list, reads it, and reports changes."""
        started_at = 0.0

        def on_start() -> None:
            nonlocal started_at
            self._number += 1
            started_at = self._started_at = monotonic()

        number = self._number
        try:
            self._bucket.check_pause()
            wait = self._list_interval_seconds() - self._seconds_since_start()
            if self._started_at is not None and wait > SMALLEST_SECONDS:
                await asyncio.sleep(wait)
            pools = await self._list_pools(ListRequest(on_start, self._is_complete))
        except BaseException:
            self._has_failed = True
            # A list that fails before its first request has no number yet. It gets one, because the reads that wait
            # for it must receive the error instead of waiting for another list.
            if self._number == number:
                on_start()
            raise
        self._has_failed = False
        self._listed = pools
        self._compare(pools, started_at)
        return Listing(self._number, started_at, pools)

    def _is_complete(self, pools: Mapping[str, Instance]) -> bool:
        """Whether the pages so far contain all pools that are tracked or that reads wait for."""
        return pools.keys() >= self._waiting.keys() | self._tracked.keys()

    def _compare(self, pools: Mapping[str, Instance], started_at: float) -> None:
        """Updates the tracked pools from a list, and reports those whose state changed."""
        changed: list[str] = []
        for name, tracked in list(self._tracked.items()):
            if tracked.since > started_at:
                continue
            found = pools.get(name)
            if found is not None and found.state == tracked.instance.state:
                self._tracked[name] = replace(tracked, instance=found)
                if monotonic() - tracked.read_at > TRACKING_TTL_SECONDS:
                    del self._tracked[name]
                continue
            del self._tracked[name]
            if found is not None and found.state in IN_PROGRESS:
                self.track(found, since=started_at)
            else:
                self._settled[name] = SettledPool(found, monotonic())
            changed.append(name)
        now = monotonic()
        self._settled = {
            name: settled for name, settled in self._settled.items() if now - settled.reported_at < SETTLED_TTL_SECONDS
        }
        if changed:
            self._changed_at = now
        for name in changed:
            for on_change in list(self._watchers):
                on_change(name)


def is_cancelling() -> bool:
    """Whether the current task itself is being cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _ignore_end(_name: str, _error: BaseException | None) -> None:
    """Ignores the error of a list: the callers that wait for the list receive it."""
