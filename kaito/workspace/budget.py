"""Compares the cost of planned nodes with the limits of a Workspace and of its namespace: pure functions.

Prices are from tables only, so that admission and reconciles send no request for them. A price that no table contains
is unknown, never 0: with a limit, nodes of an unknown price are not bought.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from heapq import nsmallest
from typing import Any, Final, Self, cast, final

from kaito.api import Claim, Workspace, labels
from kaito.prices.book import PriceBook
from kaito.prices.price import CapacityType, Offering, Price, amount
from kaito.runtime.kinds import Namespace
from kaito.runtime.meta import ObjectKey, Resource
from kaito.workspace.ownership import ClaimOwner, Identity
from kaito.workspace.settings import WorkspaceSettings

FIELD: Final = "resource.maxHourlyCost"
NAMESPACE_FIELD: Final = "metadata.namespace"

_BUDGET_NAMES: Final = ("hourly-budget", "budget", "hourly-cost", "max-hourly-cost", "maxhourlycost", "hourlybudget")
_TYPO_CUTOFF: Final = 0.75
"""Similarity (difflib's ratio) from which the key of an annotation counts as a misspelled budget."""

MAX_AMOUNT: Final = Decimal(10_000_000)

NAMED_WORKSPACES: Final = 10
"""Number of Workspaces that the message about an exceeded budget contains, those that cost most."""

_DEFAULT: Final[tuple[CapacityType, ...]] = ("on-demand",)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """The nodes that a Workspace has or is about to buy, recorded before their claims are created."""

    instance_type: str
    capacity_types: tuple[str, ...] = ()
    nodes: int

    @classmethod
    def from_annotations(cls, annotations: Mapping[str, str]) -> Self | None:
        """Reads the record of a Workspace; None if there is none or it is malformed."""
        try:
            document: object = json.loads(annotations.get(labels.RESERVATION, "null"))
        except (ValueError, RecursionError):
            return None
        if not isinstance(document, dict):
            return None
        record = cast("dict[str, Any]", document)
        name, nodes, kinds = record.get("instanceType"), record.get("nodes"), record.get("capacityTypes", [])
        if not isinstance(name, str) or not isinstance(nodes, int) or not isinstance(kinds, list):
            return None
        return cls(
            instance_type=name,
            capacity_types=tuple(str(kind) for kind in cast("list[object]", kinds)),
            nodes=min(max(nodes, 0), 10_000),
        )

    def to_annotation(self) -> str:
        """Returns the value of the annotation."""
        record: dict[str, Any] = {"instanceType": self.instance_type, "nodes": self.nodes}
        return json.dumps(record | ({"capacityTypes": list(self.capacity_types)} if self.capacity_types else {}))


@final
@dataclass(frozen=True, slots=True)
class BudgetHolder:
    """What the budget of a namespace depends on, of one of its Workspaces."""

    identity: Identity
    reservation: Reservation | None

    @classmethod
    def of(cls, workspace: Resource) -> Self:
        """Reads the metadata of a Workspace."""
        return cls(Identity.of(workspace), Reservation.from_annotations(workspace.annotations))


@final
@dataclass(frozen=True, slots=True)
class ClaimCost:
    """What the cost of a claim depends on."""

    owner: ClaimOwner
    instance_type: str
    capacity_types: tuple[str, ...]

    @classmethod
    def of(cls, claim: Claim) -> Self:
        """Reads a claim."""
        return cls(ClaimOwner.of(claim), claim.instance_type, tuple(_capacity_of(claim)))


@final
@dataclass(frozen=True, slots=True)
class Reserved:
    """What another Workspace of the namespace costs per hour."""

    name: str
    cost: Decimal
    unknown: str = ""
    """Why the cost is unknown; empty if it is known."""


@final
class ReservedTotal:
    """What Workspaces cost together, adjusted when the cost of one of them changes."""

    def __init__(self, reserved: Iterable[Reserved] = ()) -> None:
        self.cost: Decimal = Decimal(0)
        """The sum of the known costs."""
        self._reserved: dict[str, Reserved] = {}
        self._unknown: set[str] = set()
        for each in reserved:
            self.put(each)

    def put(self, reserved: Reserved) -> None:
        """Sets what a Workspace costs."""
        self.remove(reserved.name)
        if reserved.unknown:
            self._unknown.add(reserved.name)
        if reserved.cost or reserved.unknown:
            self._reserved[reserved.name] = reserved
            self.cost += reserved.cost

    def remove(self, name: str) -> None:
        """Removes a Workspace, which may be unknown."""
        before = self._reserved.pop(name, None)
        if before is not None:
            self.cost -= before.cost
        self._unknown.discard(name)

    def without(self, name: str) -> "ReservedByOthers":
        """Returns what the Workspaces except one cost; an empty name for all of them."""
        own = self._reserved.get(name)
        unknown = min(self._unknown - {name}, default=None) if self._unknown else None
        return ReservedByOthers(
            cost=self.cost - (own.cost if own is not None else 0),
            unknown=None if unknown is None else self._reserved[unknown],
            largest=lambda: self._largest(name),
        )

    def _largest(self, name: str) -> tuple[Sequence[Reserved], int]:
        costs = [each for each in self._reserved.values() if each.cost and each.name != name]
        return nsmallest(NAMED_WORKSPACES, costs, key=lambda each: (-each.cost, each.name)), len(costs)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ReservedByOthers:
    """What the other Workspaces of a namespace cost."""

    cost: Decimal = Decimal(0)
    unknown: Reserved | None = None
    """The first Workspace of which the cost is unknown; None if every cost is known."""
    largest: Callable[[], tuple[Sequence[Reserved], int]] = lambda: ((), 0)
    """Returns those that cost most, and the number of all that cost something. Valid until the next await."""


@final
@dataclass(frozen=True, slots=True)
class BudgetText:
    """What a namespace states as its budget."""

    text: str
    """Value of the annotation."""
    problem: str = ""
    """Why it is not a budget, such as a misspelled key, with the remedy; empty if it may be one."""

    @classmethod
    def of(cls, namespace: Namespace) -> Self | None:
        """Reads a namespace; None if it states no budget.

        A misspelled key is an error and not ignored, because nodes without a limit would be bought.
        """
        text = namespace.annotations.get(labels.HOURLY_BUDGET)
        if text is not None:
            return cls(text)
        if labels.HOURLY_BUDGET in namespace.labels:
            return cls("", f"label {labels.HOURLY_BUDGET} is not read: write it as an annotation")
        for key in sorted(namespace.annotations):
            name = key.rpartition("/")[2]
            if labels.is_own(key) and get_close_matches(name, _BUDGET_NAMES, n=1, cutoff=_TYPO_CUTOFF):
                return cls("", f"annotation {key} is not known: write {labels.HOURLY_BUDGET}, or remove it")
        return None


@final
@dataclass(frozen=True, slots=True)
class NamespaceBudget:
    """The annotation of a namespace, and what its other Workspaces cost."""

    namespace: str
    stated: BudgetText
    reserved: ReservedByOthers = field(default_factory=ReservedByOthers)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits for the nodes of a Workspace, and the prices."""

    book: PriceBook
    cloud: str
    region: str
    workspace: str = ""
    """`resource.maxHourlyCost`; empty for none."""
    namespace: NamespaceBudget | None = None

    def price(self, instance_type: str, capacity_type: str) -> Price | str:
        """Returns the price of a node, or why it is unknown and the remedy."""
        kind: CapacityType = "spot" if capacity_type == "spot" else "on-demand"
        what = f"the price of {instance_type} ({kind})"
        if not self.region:
            return f"{what} is unknown, because the controller has no --region: set it"
        found = self.book.find_offline(Offering(self.cloud, self.region, instance_type, kind))
        if found is None:
            return f"{what} in {self.region} is unknown: add it to the table of --price-table"
        if found.currency != self.book.currency:
            known = f"is known only in {found.currency}, and limits are in {self.book.currency}"
            return f"{what} in {self.region} {known}: add it to the table of --price-table"
        return found


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CostCheck:
    """Whether nodes may be bought."""

    capacity_types: tuple[CapacityType, ...] = ()
    """The capacity types that are within the limits, as in `Hardware.capacity_types`."""
    problem: str = ""
    """Why none of them is; empty if one is."""
    field: str = FIELD
    is_price_unknown: bool = False


def limits_of(workspace: Workspace, settings: WorkspaceSettings, book: PriceBook) -> Limits | None:
    """Returns the limits in the Workspace itself; None if there are none."""
    given = workspace.resource.max_hourly_cost
    if given is None:
        return None
    return Limits(book=book, cloud=settings.cloud, region=settings.region, workspace=given)


def namespace_limits(
    workspace: Workspace,
    settings: WorkspaceSettings,
    book: PriceBook,
    *,
    stated: BudgetText,
    others: Iterable[BudgetHolder],
    claims: Iterable[ClaimCost],
) -> Limits:
    """Returns the limits of a Workspace in a namespace with a budget.

    Args:
        workspace: the Workspace.
        settings: of the controller.
        book: the prices.
        stated: the budget of the namespace.
        others: the other Workspaces of the namespace.
        claims: the claims of the namespace's Workspaces.
    """
    limits = Limits(book=book, cloud=settings.cloud, region=settings.region)
    by_owner: defaultdict[ObjectKey | None, list[ClaimCost]] = defaultdict(list)
    for claim in claims:
        by_owner[claim.owner.key].append(claim)
    total = ReservedTotal(reserved_by(other, by_owner.get(other.identity.key, ()), limits) for other in others)
    return with_namespace(workspace, settings, book, NamespaceBudget(workspace.namespace, stated, total.without("")))


def with_namespace(
    workspace: Workspace, settings: WorkspaceSettings, book: PriceBook, budget: NamespaceBudget
) -> Limits:
    """Returns the limits of a Workspace in a namespace with this budget."""
    limits = limits_of(workspace, settings, book)
    limits = limits or Limits(book=book, cloud=settings.cloud, region=settings.region)
    return replace(limits, namespace=budget)


def parse_amount(text: str) -> Decimal | None:
    """Returns an amount of money of at least 0; None if the text is not one."""
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        return None
    return value if value.is_finite() and 0 <= value < MAX_AMOUNT else None


def check_cost(instance_type: str, capacity_types: tuple[CapacityType, ...], nodes: int, limits: Limits) -> CostCheck:
    """Compares the cost of a number of nodes with the limits, for each capacity type.

    Args:
        instance_type: of the nodes.
        capacity_types: as in `Hardware.capacity_types`.
        nodes: the number of nodes.
        limits: to compare with.
    """
    if nodes <= 0:
        return CostCheck(capacity_types=capacity_types)
    allowed: list[CapacityType] = []
    refused: list[CostCheck] = []
    for capacity in capacity_types or _DEFAULT:
        checked = _check_one(instance_type, capacity, nodes, limits)
        if checked is None:
            allowed.append(capacity)
        else:
            refused.append(checked)
    if not refused:
        return CostCheck(capacity_types=capacity_types)
    if allowed:
        return CostCheck(capacity_types=tuple(allowed))
    return next((checked for checked in refused if not checked.is_price_unknown), refused[0])


def _check_one(instance_type: str, capacity: CapacityType, nodes: int, limits: Limits) -> CostCheck | None:
    """Returns why nodes of one capacity type may not be bought; None if they may."""
    field_name = FIELD if limits.workspace else NAMESPACE_FIELD
    price = limits.price(instance_type, capacity)
    if isinstance(price, str):
        return CostCheck(problem=f"{price}, or remove the limit", field=field_name, is_price_unknown=True)
    cost, currency = price.per_hour * nodes, price.currency
    what = f"{nodes} node{'s' if nodes > 1 else ''} of {instance_type} ({capacity})"
    costs = f"{what} cost{'s' if nodes == 1 else ''} {amount(cost)} {currency} per hour"
    if limits.workspace:
        limit = parse_amount(limits.workspace)
        if limit is None:
            problem = f"{limits.workspace!r} is not an amount of money, for example 12.50: correct it"
            return CostCheck(problem=problem, field=FIELD)
        if cost > limit:
            excess = f"{amount(cost - limit)} {currency} more than {FIELD} {amount(limit)}"
            remedy = "raise it, request fewer copies, or choose a cheaper instance type"
            return CostCheck(problem=f"{costs}, {excess}: {remedy}", field=FIELD)
    if limits.namespace is None:
        return None
    problem, is_unknown = _namespace_problem(limits.namespace, cost, costs, currency)
    return CostCheck(problem=problem, field=NAMESPACE_FIELD, is_price_unknown=is_unknown) if problem else None


def _namespace_problem(budget: NamespaceBudget, cost: Decimal, costs: str, currency: str) -> tuple[str, bool]:
    """Returns why the budget of the namespace does not allow the cost (empty if it does), and whether a price is
    unknown."""
    where = f"annotation {labels.HOURLY_BUDGET} of namespace {budget.namespace}"
    if budget.stated.problem:
        return f"namespace {budget.namespace}: {budget.stated.problem}", False
    limit = parse_amount(budget.stated.text)
    if limit is None:
        return (
            f"{where} is {budget.stated.text[:40]!r}, which is not an amount of money, for example 12.50: correct it",
            False,
        )
    unknown, used = budget.reserved.unknown, budget.reserved.cost
    if unknown is not None:
        return f"the cost of Workspace {unknown.name} is unknown, and counts for the {where}: {unknown.unknown}", True
    excess = used + cost - limit
    if excess <= 0:
        return "", False
    largest, count = budget.reserved.largest()
    others = ", ".join(f"{other.name} {amount(other.cost)}" for other in largest) or "none"
    if count > len(largest):
        others += f", and {count - len(largest)} more"
    rest = f"{amount(excess)} {currency} more than the {where} leaves: {amount(limit)} less {amount(used)} of others"
    return f"{costs}, {rest} ({others}): raise it, or delete a Workspace", False


def reserved_by(holder: BudgetHolder, claims: Iterable[ClaimCost], limits: Limits) -> Reserved:
    """Returns what another Workspace costs: its reservation, or those of the claims that are its own if they cost
    more."""
    record, name = holder.reservation, holder.identity.key.name
    costs: list[Decimal] = []
    try:
        if record is not None and record.nodes:
            costs.append(_highest(record.instance_type, record.capacity_types, limits) * record.nodes)
        own = [claim for claim in claims if claim.owner.is_identity(holder.identity)]
        existing = [_highest(claim.instance_type, claim.capacity_types, limits) for claim in own]
    except _Unknown as error:
        return Reserved(name, Decimal(0), str(error))
    return Reserved(name, max(*costs, sum(existing, Decimal(0)), Decimal(0)))


class _Unknown(Exception):
    """A price is unknown."""


def _highest(instance_type: str, capacity_types: Sequence[str], limits: Limits) -> Decimal:
    prices = [limits.price(instance_type, capacity) for capacity in capacity_types or _DEFAULT]
    unknown = next((price for price in prices if isinstance(price, str)), None)
    if unknown is not None:
        raise _Unknown(unknown)
    return max(price.per_hour for price in prices if isinstance(price, Price))


def _capacity_of(claim: Claim) -> tuple[str, ...]:
    known = claim.labels.get(labels.CAPACITY_TYPE, "")
    return (known,) if known else claim.spec.values(labels.CAPACITY_TYPE)
