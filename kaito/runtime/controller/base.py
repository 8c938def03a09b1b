"""`BaseController`: the part of a declaration that `Controller`, `Keyed` and `Periodic` share."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, Generic, TypeVar

from kaito.runtime.cache import Cached
from kaito.runtime.controller.arguments import check_report, reject
from kaito.runtime.controller.cache_needs import CacheNeed, CacheNeeds, WatchedFields
from kaito.runtime.controller.failures import Failure, FailureReport
from kaito.runtime.controller.options import RunOptions
from kaito.runtime.controller.watched_kind import WatchedKind
from kaito.runtime.meta import Resource

K = TypeVar("K", bound=Hashable)


class BaseController(ABC, Generic[K]):
    """A declaration: options, watched kinds and what it needs in caches. A manager reads it once and seals it.

    Args:
        options: name and limits.
        kind: the kind that it reconciles, if there is one.
        cache: the other kinds that reconciles read.
    """

    def __init__(
        self, options: RunOptions[K], *, kind: type[Resource] | None = None, cache: Sequence[Cached] = ()
    ) -> None:
        self.options = options
        self.watched: list[WatchedKind] = []
        self.failure_report: FailureReport | None = None
        self._needs = CacheNeeds(options.name)
        if kind is not None:
            self._needs.add_kind(kind)
        self._needs.add_declared(cache)
        self._sealed = False

    @property
    def name(self) -> str:
        """Unique in the manager; label of metrics and logs."""
        return self.options.name

    @property
    def needs(self) -> Sequence[CacheNeed]:
        """What it needs in caches, one entry for each kind and cluster, its own kind first."""
        return self._needs.all

    @property
    def kinds(self) -> Sequence[type[Resource]]:
        """Every kind that it needs of the manager's own cluster, its own kind first."""
        return [need.cached.kind for need in self.needs if need.cluster is None]

    @property
    @abstractmethod
    def watched_fields(self) -> Sequence[WatchedFields]:
        """The predicates, with the kinds whose fields they compare."""

    def seal(self) -> None:
        """Rejects further declarations: the manager has read this one and would not notice a change."""
        self._sealed = True

    def _report_failures(self, function: Callable[[Any, Failure], Awaitable[None]], after: int) -> None:
        self._check_open("reports_failures")
        where = f"controller {self.name}: reports_failures"
        check_report(function, after, where)
        if self.failure_report is not None:
            reject(f"{where}: there is a function already")
        self.failure_report = FailureReport(function, after)

    def _check_open(self, method: str) -> None:
        if self._sealed:
            reject(
                f"controller {self.name} runs already: {method}() would change nothing. Declare everything first, or "
                f"manager.add() another controller"
            )
