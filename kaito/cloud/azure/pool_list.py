"""One list of agent pools at a time, shared by every question about a pool.

A question waits for the next list that begins after it: that answers as well as a GET of the one pool, also when the
pool is absent. Pools that are under way (in creation, in deletion) are followed: while `follow` runs, lists are made
at a pace that slows down, a question about such a pool is answered from the last one, and a change is reported.

Lists draw on the budget that deletions need, too (60 at once, then 1 a second, and a list costs one for each of its
pages), so their pace also depends on what is left of it.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, final

from kaito.cloud.azure.throttle import SMALLEST_SECONDS, Bucket
from kaito.cloud.errors import CloudError
from kaito.cloud.provider import Instance
from kaito.runtime.clock import monotonic
from kaito.runtime.logging import get_logger
from kaito.runtime.tasks import TaskPool

log = get_logger(__name__)

PLENTY: Final = 48.0
"""Tokens with which a question is answered at once."""

QUICK_SECONDS: Final = 0.25
"""Between the beginnings of two lists while the budget has more than its reserve."""

FIRST_FOLLOW_SECONDS: Final = 0.5
"""Between lists that only follow, at first."""

MANY: Final = 40.0
"""Tokens below which lists that only follow use no more than the refill."""

STEADY_FOLLOW_PAGES: Final = 1.0
"""Of such a list: it ends with the page that has the last pool under way."""

SLOWEST_FOLLOW_SECONDS: Final = 10.0
FOLLOW_SHARE: Final = 0.1
"""Between two lists that only follow: this part of the time since something last changed, within the bounds above."""

RESERVE: Final = 20.0
"""Tokens that are left to deletions and other reads."""

PAGES: Final = 2
"""Of a list of up to 100 pools: the recorded ones end with an empty page."""

LEAN_SHARE: Final = 0.5
"""Part of the budget's refill that lists use when only the reserve is left."""

BUSY_SHARE: Final = 0.1
"""Part of the budget's refill that lists use while other requests wait for it."""

FIRST_RETRY_SECONDS: Final = 5.0
LONGEST_RETRY_SECONDS: Final = 60.0

ALL: Final = ""
"""No pool has this name."""

ENDED_SECONDS: Final = 5.0
"""How long the list that reported a change also answers the question that the report causes."""

FORGET_SECONDS: Final = 900.0
"""A pool that nothing has asked about for this long is not followed any more."""

IN_PROGRESS: Final = frozenset({"creating", "updating", "deleting"})

Changed = Callable[[str], None]
"""Called with the name of a pool whose state has changed."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What one list showed."""

    number: int
    begun: float
    pools: Mapping[str, Instance]


@dataclass(frozen=True, slots=True)
class Followed:
    """A pool under way, as last seen."""

    instance: Instance
    since: float
    """Lists that began earlier do not count for it."""
    asked: float


@dataclass(frozen=True, slots=True)
class Ended:
    """A pool that was under way and is not any more; None: it is gone."""

    instance: Instance | None
    reported: float


@dataclass(frozen=True, slots=True)
class Reading:
    """What the reader of a list needs."""

    begins: Callable[[], None]
    """Called when the first request is about to be sent."""
    is_enough: Callable[[Mapping[str, Instance]], bool]
    """Whether the pages so far answer every question, so that no further page has to be read."""


Read = Callable[[Reading], Awaitable[Mapping[str, Instance]]]
"""Reads page after page."""


@final
class PoolList:
    """The shared list."""

    def __init__(self, read: Read, bucket: Bucket) -> None:
        self._read = read
        self._bucket = bucket
        self._tasks = TaskPool("agent-pools", ended=_ended)
        self._task: asyncio.Task[Listing] | None = None
        self._number = 0
        self._begun: float | None = None
        self._failed = False
        self._followed: dict[str, Followed] = {}
        self._ended: dict[str, Ended] = {}
        self._followers: list[Changed] = []
        self._moved = 0.0
        self._wanted = asyncio.Event()
        self._asked: Counter[str] = Counter()
        """Number of waiting questions by name of the pool; the empty name stands for all pools."""

    async def get(self, name: str) -> Instance | None:
        """The pool: as last seen if it is under way and followed, else by a list that begins now.

        Raises:
            CloudError: the list failed.
        """
        if self._followers and not self._failed:
            known = self._followed.get(name)
            if known is not None:
                self._followed[name] = replace(known, asked=monotonic())
                return known.instance
            ended = self._ended.get(name)
            if ended is not None and monotonic() - ended.reported < ENDED_SECONDS:
                return ended.instance
        listing = await self._fresh(name)
        found = listing.pools.get(name)
        if found is not None and found.state in IN_PROGRESS:
            self.note(found, since=listing.begun)
        return found

    async def all(self) -> Mapping[str, Instance]:
        """Every pool, by the next list that begins after this call; callers that come meanwhile share it.

        Raises:
            CloudError: it failed.
        """
        return (await self._fresh(ALL)).pools

    async def _fresh(self, name: str) -> Listing:
        """The next list that begins after this call and has the pool, or all pages."""
        self._asked[name] += 1
        try:
            return await self._next_list()
        finally:
            self._asked[name] -= 1
            if not self._asked[name]:
                del self._asked[name]

    async def _next_list(self) -> Listing:
        asked = self._number
        while True:
            if self._task is None or self._task.done():
                self._task = self._tasks.spawn(self._next(), name="list")
            try:
                listing = await asyncio.shield(self._task)
            except CloudError:
                if self._number > asked:
                    raise
                continue  # it began before the question
            if listing.number > asked:
                return listing

    def note(self, instance: Instance, *, since: float | None = None) -> None:
        """A pool is under way: this process has just created or deleted it, or saw it so."""
        now = monotonic()
        self._ended.pop(instance.name, None)
        self._followed[instance.name] = Followed(instance, now if since is None else since, now)
        self._moved = now
        self._wanted.set()

    def note_deleting(self, name: str) -> None:
        """The deletion of a pool was accepted."""
        known = self._followed.get(name)
        instance = known.instance if known is not None else Instance(name=name, state="deleting", instance_type="")
        self.note(replace(instance, state="deleting"))

    async def watch(self, on_change: Changed) -> None:
        """Report changes of pools under way until cancelled."""
        self._followers.append(on_change)
        failures = 0
        try:
            while True:
                await self._wanted.wait()
                await self._until_due()
                if not self._followed:
                    self._wanted.clear()
                    continue
                try:
                    await self._next_list()
                    failures = 0
                except CloudError as error:
                    failures += 1
                    wait = min(FIRST_RETRY_SECONDS * 2 ** min(failures - 1, 10), LONGEST_RETRY_SECONDS)
                    log.warning("listing the agent pools failed, retrying", error=str(error), failures=failures)
                    await asyncio.sleep(max(wait, error.retry_after or 0.0))
        finally:
            self._followers.remove(on_change)

    async def close(self) -> None:
        """Give up a list in flight."""
        self._tasks.cancel()
        await self._tasks.stop(None)

    async def _until_due(self) -> None:
        """Wait until the pace allows the next list, by whatever list was the last when the wait ends."""
        while True:
            wait = self._follow_seconds() - self._age()
            if wait <= SMALLEST_SECONDS:
                return
            await asyncio.sleep(wait)

    def _age(self) -> float:
        return monotonic() - self._begun if self._begun is not None else SLOWEST_FOLLOW_SECONDS

    def _follow_seconds(self) -> float:
        unmoved = monotonic() - self._moved
        first = FIRST_FOLLOW_SECONDS if self._bucket.tokens >= MANY else STEADY_FOLLOW_PAGES / self._bucket.rate
        pace = min(max(first, unmoved * FOLLOW_SHARE), SLOWEST_FOLLOW_SECONDS)
        return max(pace, self._affordable_seconds())

    def _affordable_seconds(self) -> float:
        """What the budget allows between two lists."""
        refill = PAGES / self._bucket.rate
        if self._bucket.waiting:
            return refill / BUSY_SHARE
        if self._bucket.tokens <= RESERVE:
            return STEADY_FOLLOW_PAGES / self._bucket.rate / LEAN_SHARE
        return 0.0 if self._bucket.tokens >= PLENTY else QUICK_SECONDS

    async def _next(self) -> Listing:
        """The next list, not before it is affordable; what changed is reported."""
        begun = 0.0

        def begins() -> None:
            nonlocal begun
            self._number += 1
            begun = self._begun = monotonic()

        number = self._number
        try:
            self._bucket.check_pause()
            wait = self._affordable_seconds() - self._age()
            if self._begun is not None and wait > SMALLEST_SECONDS:
                await asyncio.sleep(wait)
            pools = await self._read(Reading(begins, self._is_enough))
        except BaseException:
            self._failed = True
            if self._number == number:  # it failed before its first request was sent: still an answer to the question
                begins()
            raise
        self._failed = False
        self._compare(pools, begun)
        return Listing(self._number, begun, pools)

    def _is_enough(self, pools: Mapping[str, Instance]) -> bool:
        """Whether every pool that is asked about or followed is there: then no further page is needed."""
        return pools.keys() >= self._asked.keys() | self._followed.keys()

    def _compare(self, pools: Mapping[str, Instance], begun: float) -> None:
        changed: list[str] = []
        for name, known in list(self._followed.items()):
            if known.since > begun:
                continue
            found = pools.get(name)
            if found is not None and found.state == known.instance.state:
                self._followed[name] = replace(known, instance=found)
                if monotonic() - known.asked > FORGET_SECONDS:
                    del self._followed[name]
                continue
            del self._followed[name]
            if found is not None and found.state in IN_PROGRESS:
                self.note(found, since=begun)
            else:
                self._ended[name] = Ended(found, monotonic())
            changed.append(name)
        now = monotonic()
        self._ended = {name: ended for name, ended in self._ended.items() if now - ended.reported < ENDED_SECONDS}
        if changed:
            self._moved = now
        for name in changed:
            for report in list(self._followers):
                report(name)


def _ended(_name: str, _error: BaseException | None) -> None:
    """Ignores the end of a list: its error is raised to the callers that wait for it."""
