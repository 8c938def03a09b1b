"""The invariants of money: what claims cost compared with the limits that applied when each was created.

Limits are compared when a claim is created, because nodes that exist stay if a limit is lowered. The controllers read a
limit before they create claims, so that the highest value of the last `history.READ_SECONDS` applies.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final, final

from kaito.runtime.testing.simulate import Finding, Run
from kaito.simulation.history import History
from kaito.simulation.manifests import Object, condition, has_condition, is_terminating, name_of, section
from kaito.simulation.plans import (
    PRICES,
    cheapest,
    nodes_on,
    nodes_per_copy,
    price_of,
    size_of,
    sizes_of,
    usable_sizes,
)

MIXED_SECONDS: Final = 60.0
"""How long a Workspace may have claims of two instance types of which none is terminating."""

REFUSED_SECONDS: Final = 180.0
"""How long a claim may exist that the cloud refuses, if the Workspace may use another instance type."""

REFUSALS: Final = frozenset({"InsufficientCapacity", "QuotaExceeded", "UnsupportedInstanceType"})
"""Reasons after which another instance type is used."""

PAID_SECONDS: Final = 1500.0
"""How long a Workspace may have claims of two instance types: the drain and the deletion of the former nodes."""

Owner = Callable[[Object], Object | None]
"""Returns the Workspace of a claim."""

Limits = History[Decimal | None]
"""A limit over time; None where there is none."""


@final
class Spending:
    """Compares the claims of one run with limits and prices.

    Args:
        run: the run.
        claims: the resource of the claims.
        owner: returns the Workspace of a claim.
        launched: type of the condition about the launch of a claim.
    """

    def __init__(self, run: Run, claims: str, owner: Owner, launched: str) -> None:
        self._run, self._claims, self._owner, self._launched = run, claims, owner, launched
        self._of_workspaces: dict[str, Limits] = {}
        self._of_namespaces: dict[str, Limits] = {}
        self._broken_rules: list[Finding] = []
        run.world.server.on_write(self._on_write)

    def _on_write(self, resource: str, obj: Object, previous: Object | None) -> None:
        now, metadata = self._run.now, obj["metadata"]
        if resource == "workspaces.kaito.sh":
            limit = amount(section(obj, "resource").get("maxHourlyCost"))
            self._of_workspaces.setdefault(metadata["uid"], Limits()).note(now, limit)
        elif resource == "namespaces":
            limit = budget_of(obj) if ("", metadata["name"]) in self._run.stored(resource) else None
            self._of_namespaces.setdefault(metadata["name"], Limits()).note(now, limit)
        elif resource == self._claims and previous is None:
            self._on_new_claim(obj)

    def _on_new_claim(self, claim: Object) -> None:
        owner = self._owner(claim)
        if owner is None:
            return
        now, namespace = self._run.now, owner["metadata"]["namespace"]
        own, others = self._costs(owner)
        limit = highest(self._of_workspaces.setdefault(owner["metadata"]["uid"], Limits()).recent(now))
        if limit is not None and own > limit:
            text = f"{name_of(claim)} is created: {name_of(owner)} has claims for {own} per hour, at most {limit}"
            self._broken_rules.append(Finding("no spending above a limit", text))
        limit = highest(self._of_namespaces.setdefault(namespace, Limits()).recent(now))
        if limit is not None and own + others > limit:
            text = f"{name_of(claim)} of {name_of(owner)} is created: {own} and {others} of others, at most {limit}"
            self._broken_rules.append(Finding("no spending above a limit", f"namespace {namespace}: {text}"))

    def _costs(self, owner: Object) -> tuple[Decimal, Decimal]:
        """Returns the cost of a Workspace's claims that are not terminating, and of all claims of its neighbors."""
        own = others = Decimal(0)
        for claim in self._run.stored(self._claims).values():
            found = self._owner(claim)
            if found is owner:
                own += Decimal(0) if is_terminating(claim) else price_of(claim)
            elif found is not None and found["metadata"]["namespace"] == owner["metadata"]["namespace"]:
                others += price_of(claim)
        return own, others

    def check(self) -> Iterator[Finding]:
        """Returns what is wrong, or must not last."""
        yield from self._broken_rules
        live: dict[str, set[str]] = {}
        paid: dict[str, set[str]] = {}
        for claim in self._run.stored(self._claims).values():
            owner = self._owner(claim)
            if owner is None or is_terminating(owner):
                continue
            paid.setdefault(name_of(owner), set()).add(size_of(claim))
            if is_terminating(claim):
                continue
            live.setdefault(name_of(owner), set()).add(size_of(claim))
            if len(sizes_of(owner)) > 1 and self._is_refused(claim) and self._may_leave(owner):
                text = f"{name_of(claim)} is refused, and {name_of(owner)} may use another instance type"
                yield Finding("the next alternative is used", text, REFUSED_SECONDS)
        for sizes, rest, within in ((live, "none is terminating", MIXED_SECONDS), (paid, "exist", PAID_SECONDS)):
            for name, found in sizes.items():
                if len(found) > 1:
                    text = f"{name} has claims of {' and '.join(sorted(found))}: {rest}"
                    yield Finding("one instance type for each Workspace", text, within)

    def _is_refused(self, claim: Object) -> bool:
        found = condition(claim, self._launched)
        return found is not None and found["status"] == "False" and found.get("reason") in REFUSALS

    def _may_leave(self, workspace: Object) -> bool:
        """Whether not even one copy has its nodes, and nodes of another instance type may be bought."""
        claims = self._run.stored(self._claims).values()
        launched = [
            size_of(each)
            for each in claims
            if self._owner(each) is workspace and not is_terminating(each) and has_condition(each, self._launched)
        ]
        if launched and len(launched) >= nodes_per_copy(workspace, launched[0]):
            return False
        return len({size for size in usable_sizes(workspace) if self._allows(workspace, size)}) > 1

    def is_unaffordable(self, workspace: Object) -> bool:
        """Whether the limits forbid the nodes of a Workspace on each instance type, or on that of its claims."""
        claims = self._run.stored(self._claims).values()
        used = {size_of(each) for each in claims if not is_terminating(each) and self._owner(each) is workspace}
        return not any(self._allows(workspace, size) for size in used or usable_sizes(workspace))

    def _allows(self, workspace: Object, size: str) -> bool:
        if not nodes_on(workspace, size) or not any(size == known for known, _ in PRICES):
            return True
        cost = cheapest(workspace, size)
        limit = amount(section(workspace, "resource").get("maxHourlyCost"))
        if limit is not None and cost > limit:
            return False
        namespace = self._run.stored("namespaces").get(("", workspace["metadata"]["namespace"]))
        limit = None if namespace is None else budget_of(namespace)
        return limit is None or cost + self._costs(workspace)[1] <= limit


def highest(limits: Sequence[Decimal | None]) -> Decimal | None:
    """Returns the highest of several limits; None for no limit."""
    known = [limit for limit in limits if limit is not None]
    return max(known, default=None) if len(known) == len(limits) else None


def amount(text: object) -> Decimal | None:
    """Returns an amount of money; None if there is none, and 0 if the text is not one."""
    if text is None or text == "":
        return None
    try:
        return Decimal(str(text))
    except InvalidOperation:
        return Decimal(0)


def budget_of(namespace: Mapping[str, Any]) -> Decimal | None:
    """Returns the budget of a namespace; None for none."""
    return amount(section(namespace, "metadata", "annotations").get("kaito.sh/hourly-budget"))
