"""The board: one row for each Workspace, computed again only when something about that Workspace changes.

The informers report changes. Every fifth of a second, the rows of the Workspaces that they concern are computed, with a
turn of the event loop between them, and rows that differ are published under a new revision. Readers keep the revision
that they have sent, so that a slow reader occupies no memory: it gets the newest rows, or all rows if it is too far
behind.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar, final

from kaito.api import Workspace
from kaito.console.cluster.kinds import UNREAD_NAMES, concerned, concerned_by
from kaito.console.cluster.situations import Situations
from kaito.console.tuning import TuningMonitor
from kaito.console.views.costs import Cost, cost_of
from kaito.console.views.json_values import Json, to_json
from kaito.console.views.rows import row
from kaito.diagnosis import Diagnosis, diagnose
from kaito.runtime.cache import Cache, Event as CacheEvent
from kaito.runtime.clock import Clock
from kaito.runtime.errors import UnreadableObject
from kaito.runtime.kinds import Deployment, Event, Namespace
from kaito.runtime.logging import get_logger
from kaito.runtime.meta import ObjectKey, Resource
from kaito.runtime.tasks import TaskScope
from kaito.workspace.costs import NodePrices

R = TypeVar("R", bound=Resource)

FLUSH_SECONDS: Final = 0.2
"""Time between two publications."""

REFRESH_SECONDS: Final = 15.0
"""Interval at which rows that depend on the time are computed again."""

KEPT_CHANGES: Final = 4096
"""Changes that are kept for readers. A reader that is further behind gets all rows."""

_log = get_logger(__name__)


@final
@dataclass(frozen=True, slots=True)
class Entry:
    """A Workspace on the board."""

    row: Json
    cost: Cost
    diagnosis: Diagnosis
    tuning: Json | None
    text: str = field(compare=False, default="")
    """The row as JSON, which all readers share."""

    @property
    def is_settled(self) -> bool:
        """Whether the row does not depend on the time."""
        return self.diagnosis.state in {"ready", "succeeded", "stopped"}


@final
class Board:
    """The rows of all Workspaces.

    Args:
        cache: the informers.
        situations: reads the objects of a Workspace.
        prices: prices of nodes.
        tuning: the progress of tuning jobs.
        clock: the current time.
    """

    def __init__(
        self, cache: Cache, situations: Situations, prices: NodePrices, tuning: TuningMonitor, clock: Clock
    ) -> None:
        self._cache = cache
        self._situations = situations
        self._prices = prices
        self._tuning = tuning
        self._clock = clock
        self._entries: dict[ObjectKey, Entry] = {}
        self._dirty: dict[ObjectKey, None] = {}
        self._wake = asyncio.Event()
        self._published = asyncio.Event()
        self._changes: deque[tuple[int, ObjectKey]] = deque(maxlen=KEPT_CHANGES)
        self._is_flushing = False
        self.revision = 0
        """Increases with every publication."""

    @property
    def entries(self) -> Mapping[ObjectKey, Entry]:
        """The Workspaces."""
        return self._entries

    @property
    def is_behind(self) -> bool:
        """Whether changes are known that the rows do not contain yet."""
        return bool(self._dirty) or self._is_flushing or not self._cache.informer(Workspace).idle

    # Changes.

    def subscribe(self) -> None:
        """Subscribes to all informers. Called once, before they run."""
        kinds: tuple[type[Resource], ...] = (Workspace, *UNREAD_NAMES)
        for kind in kinds:
            self._cache.informer(kind).subscribe(self._receiver(kind), name="console")

    def _receiver(self, kind: type[R]) -> Callable[[CacheEvent[R]], None]:
        def receive(event: CacheEvent[R]) -> None:
            if event.unchanged:
                return
            if kind in {Namespace, Deployment}:  # rare, and concern the Workspaces of a namespace, or all
                self.mark(key for key in self._entries if kind is Deployment or key.namespace == event.key.name)
                return
            for state in event.states:
                about = state.object if kind is Event else None
                if isinstance(about, Event):
                    self.mark(concerned_by(self._cache, about))
                else:
                    self.mark(concerned(self._cache, kind, state.header))

        return receive

    def mark(self, keys: Iterable[ObjectKey]) -> None:
        """Requests that rows are computed again."""
        for key in keys:
            self._dirty[key] = None
        if self._dirty:
            self._wake.set()

    # Publication.

    async def run(self) -> None:
        """Computes rows until canceled."""
        async with TaskScope("board") as scope:
            scope.spawn(self._refresh(), name="refresh")
            while True:
                await self._wake.wait()
                await self.flush()
                await asyncio.sleep(FLUSH_SECONDS)

    async def flush(self) -> None:
        """Computes the rows that were marked, and publishes those that differ."""
        self._wake.clear()
        dirty, self._dirty = self._dirty, {}
        changed: list[ObjectKey] = []
        self._is_flushing = True
        try:
            for key in dirty:
                if self._update(key):
                    changed.append(key)
                await asyncio.sleep(0)
        finally:
            self._is_flushing = False
        if changed:
            self.publish(changed)

    def publish(self, changed: Iterable[ObjectKey]) -> None:
        """Announces a new revision with the Workspaces that changed."""
        self.revision += 1
        self._changes.extend((self.revision, key) for key in changed)
        published, self._published = self._published, asyncio.Event()
        published.set()

    def _update(self, key: ObjectKey) -> bool:
        """Computes a row; returns whether it, or something else about the Workspace, differs."""
        before = self._entries.get(key)
        entry = self._entry(key)
        if entry is None:
            return self._entries.pop(key, None) is not None
        self._entries[key] = entry
        return before != entry

    def _entry(self, key: ObjectKey) -> Entry | None:
        try:
            workspace = self._situations.find(key)
            if workspace is None:
                return None
            situation = self._situations.read(workspace, self._clock.now())
        except UnreadableObject as error:
            _log.warning("workspace not readable", workspace=str(key), error=str(error))
            return None
        diagnosis = diagnose(situation)
        cost = cost_of(situation, self._prices)
        found = row(situation, diagnosis, cost)
        return Entry(found, cost, diagnosis, self._tuning.progress(key), to_json(found))

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            self.mark(key for key, entry in self._entries.items() if not entry.is_settled)

    # Readers.

    async def wait(self, revision: int) -> None:
        """Waits until the board has a later revision."""
        while self.revision <= revision:
            await self._published.wait()

    def changes_since(self, revision: int) -> Sequence[ObjectKey] | None:
        """Returns the Workspaces that changed after a revision; None if too many changed since."""
        if revision == self.revision:
            return []
        if not self._changes or self._changes[0][0] > revision + 1:
            return None
        return list(dict.fromkeys(key for changed, key in self._changes if changed > revision))
