"""What the Workspaces of each namespace cost, kept up to date from the cache; shared by all reconciles of the process.

A reconcile in a namespace with a budget compares with the sum of all other Workspaces. Computing it from all of them
would make each new Workspace as expensive as the namespace is large, so that the sum is adjusted by what has changed.
"""

import asyncio
from collections import defaultdict
from typing import final

from kaito.api import Claim, Workspace
from kaito.prices.book import PriceBook
from kaito.runtime.errors import UnreadableObject
from kaito.runtime.meta import ObjectKey, Resource
from kaito.workspace.budget import BudgetHolder, ClaimCost, Limits, ReservedByOthers, ReservedTotal, reserved_by
from kaito.workspace.settings import WorkspaceSettings


class WorkspaceMetadata(Resource, api=Workspace.api_version, kind=Workspace.kind, plural=Workspace.plural):
    """The metadata of a Workspace: all that the budget depends on."""


@final
class Budgets:
    """The price book, a lock for each namespace, and the ledger, shared by all reconciles of the process.

    Only the leader creates claims, so that a lock in the process keeps two Workspaces from reserving the same rest of a
    budget.
    """

    def __init__(self, book: PriceBook | None = None) -> None:
        self.book = book or PriceBook()
        self.confirmed: set[str] = set()
        """Namespaces in which cached reads contain all that earlier leaders have reserved."""
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._ledgers: dict[type[Claim], Ledger] = {}

    def lock(self, namespace: str) -> asyncio.Lock:
        """Returns the lock of a namespace."""
        return self._locks[namespace]

    def ledger(self, kind: type[Claim], settings: WorkspaceSettings) -> "Ledger":
        """Returns the ledger of Workspaces and their claims of a kind; the settings do not change in a process."""
        found = self._ledgers.get(kind)
        if found is None:
            limits = Limits(book=self.book, cloud=settings.cloud, region=settings.region)
            found = self._ledgers[kind] = Ledger(kind, limits)
        return found


@final
class Ledger:
    """The sums of the namespaces. `Api.update_aggregate` passes changes to `holders` and `claims`."""

    def __init__(self, kind: type[Claim], limits: Limits) -> None:
        self.holders = _Holders(self)
        self.claims = _Claims(self, kind)
        self.limits = limits
        self._totals: defaultdict[str, ReservedTotal] = defaultdict(ReservedTotal)

    @property
    def is_readable(self) -> bool:
        """Whether all objects could be decoded, so that no cost is missing."""
        return not self.holders.unreadable and not self.claims.unreadable

    def others(self, workspace: Workspace) -> ReservedByOthers:
        """Returns what the other Workspaces of the namespace cost."""
        holder = self.holders.known.get(workspace.key)
        is_self = holder is not None and holder.identity.uid == workspace.uid
        return self._totals[workspace.namespace].without(workspace.name if is_self else "")

    def adjust(self, key: ObjectKey) -> None:
        """Computes what a Workspace costs again."""
        total = self._totals[key.namespace]
        holder = self.holders.known.get(key)
        if holder is None:
            total.remove(key.name)
        else:
            total.put(reserved_by(holder, self.claims.of(key), self.limits))


@final
class _Holders:
    """The Workspaces."""

    def __init__(self, ledger: Ledger) -> None:
        self.kind: type[WorkspaceMetadata] = WorkspaceMetadata
        self.known: dict[ObjectKey, BudgetHolder] = {}
        self.unreadable: set[ObjectKey] = set()
        self._ledger = ledger

    def put(self, key: ObjectKey, obj: WorkspaceMetadata | UnreadableObject) -> None:
        if isinstance(obj, UnreadableObject):
            self.remove(key)
            self.unreadable.add(key)
            return
        self.unreadable.discard(key)
        holder = BudgetHolder.of(obj)
        if self.known.get(key) != holder:
            self.known[key] = holder
            self._ledger.adjust(key)

    def remove(self, key: ObjectKey) -> None:
        self.unreadable.discard(key)
        if self.known.pop(key, None) is not None:
            self._ledger.adjust(key)


@final
class _Claims:
    """The claims, by name and by the Workspace that their labels name."""

    def __init__(self, ledger: Ledger, kind: type[Claim]) -> None:
        self.kind: type[Claim] = kind
        self.unreadable: set[ObjectKey] = set()
        self._ledger = ledger
        self._known: dict[ObjectKey, ClaimCost] = {}
        self._by_owner: dict[ObjectKey, dict[ObjectKey, ClaimCost]] = {}

    def of(self, owner: ObjectKey) -> list[ClaimCost]:
        """Returns the claims whose labels name a Workspace."""
        return list(self._by_owner.get(owner, {}).values())

    def put(self, key: ObjectKey, obj: Claim | UnreadableObject) -> None:
        if isinstance(obj, UnreadableObject):
            self.remove(key)
            self.unreadable.add(key)
            return
        self.unreadable.discard(key)
        cost = ClaimCost.of(obj)
        if self._known.get(key) == cost:
            return
        self.remove(key)
        self._known[key] = cost
        owner = cost.owner.key
        if owner is not None:
            self._by_owner.setdefault(owner, {})[key] = cost
            self._ledger.adjust(owner)

    def remove(self, key: ObjectKey) -> None:
        self.unreadable.discard(key)
        known = self._known.pop(key, None)
        owner = None if known is None else known.owner.key
        if owner is None:
            return
        claims = self._by_owner[owner]
        del claims[key]
        if not claims:
            del self._by_owner[owner]
        self._ledger.adjust(owner)
