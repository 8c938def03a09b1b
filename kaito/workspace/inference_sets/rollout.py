"""Decides which Workspaces of an InferenceSet to create, to change in place and to delete: a pure function.

The rules, in the order in which they are applied:

* Workspaces that the current template can reach ("kept") are created until there are `replicas` of them. While others
  have to be replaced, at most `max_surge` Workspaces exist above `replicas`, and never more than the node limit allows.
* Surplus Workspaces are deleted: those that do not serve first, then those with an old template, then those with the
  fewest requests, then the newest. One whose requests are unknown follows those that are idle, and precedes those
  that answer requests: those are known to work. The number that serves never falls below `replicas` because of a
  scale-down.
* Workspaces that have to be replaced are deleted as soon as more than `replicas` serve. One that does not serve is
  deleted at once. Where no additional Workspace may exist, one that serves is deleted within `max_unavailable`.
* A Workspace with several copies, of which some are ready, serves for these rules, and precedes those with all copies.
* Other changes are applied in place, within `max_unavailable`; those that do not serve first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from kaito.workspace.inference_sets.children import Child

_UNKNOWN: Final = 0.5
"""Stands for unknown requests: more than none, and fewer than any."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Bounds of an update, computed for the number of replicas."""

    max_unavailable: int = 1
    max_surge: int = 1
    is_manual: bool = False
    """Whether Workspaces keep an old template until the user deletes them."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class NodeBudget:
    """The limit of nodes of the whole set."""

    limit: int = 0
    """0 for no limit."""
    per_workspace: int | None = None
    """Nodes that a new Workspace needs; None if unknown."""

    def affordable(self, children: Sequence[Child]) -> int | None:
        """Returns how many Workspaces may be created; None without a limit.

        Nodes of Workspaces that are being deleted count, because they exist. If the number of nodes is unknown, one
        Workspace is created, which has none before the number is known.
        """
        if not self.limit:
            return None
        if self.per_workspace is None:
            return 0 if children else 1
        used = sum(child.nodes or self.per_workspace for child in children)
        return max((self.limit - used) // max(self.per_workspace, 1), 0)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do now. The next observation leads to the next decision."""

    create: int = 0
    """Number of Workspaces to create."""
    update: tuple[str, ...] = ()
    """Workspaces to change in place."""
    delete: tuple[str, ...] = ()
    """Workspaces to delete."""
    is_limited: bool = False
    """Whether the node limit prevents a Workspace from being created."""


def decide(children: Sequence[Child], replicas: int, bounds: Bounds, budget: NodeBudget) -> Decision:
    """Returns what to do about the Workspaces of a set.

    Args:
        children: all Workspaces of the set, those that are being deleted included.
        replicas: the wanted number.
        bounds: of an update.
        budget: the limit of nodes.
    """
    live = [child for child in children if not child.is_deleting]
    old = [child for child in live if _must_be_replaced(child, bounds)]
    kept = [child for child in live if child not in old]

    create, is_limited = _creations(children, live, kept, old, replicas, bounds, budget)
    surplus = _by_expendability(kept)[: max(len(kept) - replicas, 0)]
    serving = sum(child.has_ready_copy for child in live) - sum(child.has_ready_copy for child in surplus)
    retired = _retired(old, serving, replicas, bounds, is_blocked=is_limited or bounds.max_surge == 0)
    serving -= sum(child.has_ready_copy for child in retired)
    remaining = [child for child in kept if child not in surplus]
    return Decision(
        create=create,
        update=tuple(child.name for child in _in_place(remaining, serving, replicas, bounds)),
        delete=tuple(child.name for child in (*surplus, *retired)),
        is_limited=is_limited,
    )


def _must_be_replaced(child: Child, bounds: Bounds) -> bool:
    if bounds.is_manual or child.change == "none":
        return False
    return child.change == "replace" or bounds.max_unavailable == 0


def _creations(
    children: Sequence[Child],
    live: Sequence[Child],
    kept: Sequence[Child],
    old: Sequence[Child],
    replicas: int,
    bounds: Bounds,
    budget: NodeBudget,
) -> tuple[int, bool]:
    """Returns the number of Workspaces to create, and whether the node limit allows fewer than wanted."""
    most = replicas + min(bounds.max_surge, len(old))
    wanted = max(min(replicas - len(kept), most - len(live)), 0)
    affordable = budget.affordable(children)
    if affordable is None or affordable >= wanted:
        return wanted, False
    return affordable, budget.per_workspace is not None


def _by_expendability(children: Sequence[Child]) -> list[Child]:
    """Returns the Workspaces in the order in which they are deleted."""

    def order(child: Child) -> tuple[bool, bool, bool, float, float, int, str]:
        requests = _UNKNOWN if child.requests is None else child.requests
        age = -child.created.timestamp() if child.created is not None else 0.0
        is_old = child.change != "none"
        return child.has_ready_copy, child.is_serving, not is_old, requests, age, -child.number, child.name

    return sorted(children, key=order)


def is_choice(children: Sequence[Child], decision: Decision) -> bool:
    """Whether the decision deletes some of several Workspaces that serve, so that their load matters."""
    serving = [child.name for child in children if child.has_ready_copy and not child.is_deleting]
    deleted = [name for name in serving if name in decision.delete]
    return 0 < len(deleted) < len(serving)


def _retired(old: Sequence[Child], serving: int, replicas: int, bounds: Bounds, *, is_blocked: bool) -> list[Child]:
    """Returns the Workspaces with an old template to delete.

    Args:
        old: the Workspaces that have to be replaced.
        serving: the number of all Workspaces that serve, without those that are deleted for another reason.
        replicas: the wanted number.
        bounds: of the update.
        is_blocked: whether no additional Workspace can be created before one is deleted.
    """
    idle = [child for child in old if not child.has_ready_copy]
    least = replicas - (bounds.max_unavailable if is_blocked else 0)
    spare = max(serving - max(least, 0), 0)
    busy = _by_expendability([child for child in old if child.has_ready_copy])
    return [*idle, *busy[:spare]]


def _in_place(kept: Sequence[Child], serving: int, replicas: int, bounds: Bounds) -> list[Child]:
    """Returns the Workspaces to change in place now."""
    if bounds.is_manual:
        return []
    outdated = sorted(
        (child for child in kept if child.change == "in-place"), key=lambda child: (child.is_settled, child.number)
    )
    chosen = [child for child in outdated if not child.has_ready_copy]
    unavailable = sum(child.has_ready_copy and not child.is_settled for child in kept) + max(replicas - serving, 0)
    for child in outdated:
        cost = int(child.is_settled)
        if child.has_ready_copy and unavailable + cost <= bounds.max_unavailable:
            unavailable += cost
            chosen.append(child)
    return chosen
