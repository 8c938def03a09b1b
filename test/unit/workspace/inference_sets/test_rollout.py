"""The decision about the Workspaces of a set: tables, and invariants over random observations."""

import random
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from kaito.workspace.inference_sets.children import Change, Child
from kaito.workspace.inference_sets.rollout import Bounds, Decision, NodeBudget, decide

UNLIMITED = NodeBudget()


def child(number: int, state: str = "ready", change: Change = "none", nodes: int = 1) -> Child:
    """Returns a Workspace: ready, restarting (serves, is not settled), starting or deleting."""
    return Child(
        name=f"phi-{number}",
        number=number,
        change=change,
        is_serving=state in {"ready", "restarting"},
        is_settled=state == "ready",
        is_deleting=state == "deleting",
        nodes=nodes,
    )


def test_a_new_set_creates_all_workspaces() -> None:
    assert decide([], 3, Bounds(), UNLIMITED) == Decision(create=3)


def test_a_workspace_that_is_being_deleted_is_replaced() -> None:
    assert decide([child(0, "deleting"), child(1)], 2, Bounds(), UNLIMITED) == Decision(create=1)


@pytest.mark.parametrize(
    ("children", "deleted"),
    [
        ([child(0), child(1), child(2)], ("phi-2",)),
        ([child(0, "starting"), child(1), child(2)], ("phi-0",)),
        ([child(0, change="in-place"), child(1), child(2)], ("phi-0",)),
        ([child(0, "starting"), child(1, change="in-place"), child(2)], ("phi-0",)),
        ([child(0), child(1, "starting"), child(2, "starting")], ("phi-2",)),
    ],
)
def test_the_least_useful_workspace_is_deleted_first(children: list[Child], deleted: tuple[str, ...]) -> None:
    assert decide(children, 2, Bounds(max_unavailable=1), UNLIMITED).delete == deleted


EARLY, LATE = datetime(2030, 1, 1, tzinfo=UTC), datetime(2030, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("children", "deleted"),
    [
        ([replace(child(0), requests=1.0), replace(child(1), requests=5.0), child(2)], ("phi-2",)),
        ([replace(child(0), requests=0.0), replace(child(1), requests=5.0), child(2)], ("phi-0",)),
        (
            [replace(child(0), requests=5.0), replace(child(1), requests=0.0), replace(child(2), requests=5.0)],
            ("phi-1",),
        ),
        (
            [replace(child(0), created=LATE), replace(child(1), created=EARLY), replace(child(2), created=EARLY)],
            ("phi-0",),
        ),
        ([replace(child(0), requests=0.0), child(1, "starting"), replace(child(2), requests=9.0)], ("phi-1",)),
        ([replace(child(0), requests=0.0), child(1, change="in-place"), child(2)], ("phi-1",)),
    ],
)
def test_of_those_that_serve_the_one_with_the_fewest_requests_is_deleted(
    children: list[Child], deleted: tuple[str, ...]
) -> None:
    assert decide(children, 2, Bounds(), UNLIMITED).delete == deleted


def test_a_replacement_serves_before_the_old_workspace_is_deleted() -> None:
    old = [child(n, change="replace") for n in range(3)]
    assert decide(old, 3, Bounds(), UNLIMITED) == Decision(create=1)
    assert decide([*old, child(3, "starting")], 3, Bounds(), UNLIMITED) == Decision()
    assert decide([*old, child(3)], 3, Bounds(), UNLIMITED) == Decision(delete=("phi-2",))
    assert decide([*old[:2], child(3)], 3, Bounds(), UNLIMITED) == Decision(create=1)
    assert decide([*old[:1], child(3), child(4), child(5)], 3, Bounds(), UNLIMITED) == Decision(delete=("phi-0",))


def test_an_old_workspace_that_does_not_serve_is_replaced_at_once() -> None:
    old = [child(0, change="replace"), child(1, "starting", change="replace")]
    assert decide(old, 2, Bounds(max_surge=0, max_unavailable=1), UNLIMITED).delete == ("phi-1",)


@pytest.mark.parametrize(("bounds", "budget"), [
    (Bounds(max_surge=0, max_unavailable=1), UNLIMITED),
    (Bounds(max_surge=1, max_unavailable=1), NodeBudget(limit=2, per_workspace=1)),
])  # fmt: skip
def test_without_additional_nodes_an_old_workspace_is_deleted_first(bounds: Bounds, budget: NodeBudget) -> None:
    old = [child(n, change="replace") for n in range(2)]
    assert decide(old, 2, bounds, budget).delete == ("phi-1",)
    during = [old[0], child(1, "deleting", change="replace")]
    assert decide(during, 2, bounds, budget).delete == ()
    after = [old[0], child(2, "starting")]
    assert decide(after, 2, bounds, budget) == Decision(is_limited=bool(budget.limit))
    assert decide([old[0], child(2)], 2, bounds, budget).delete == ("phi-0",)


def test_changes_in_place_are_bounded() -> None:
    outdated = [child(n, change="in-place") for n in range(4)]
    assert decide(outdated, 4, Bounds(max_unavailable=2), UNLIMITED).update == ("phi-0", "phi-1")
    during = [child(0, "restarting"), child(1, "starting"), *outdated[2:]]
    assert decide(during, 4, Bounds(max_unavailable=2), UNLIMITED).update == ()
    later = [child(0), child(1, "starting"), *outdated[2:]]
    assert decide(later, 4, Bounds(max_unavailable=2), UNLIMITED).update == ("phi-2",)


def test_a_change_in_place_repairs_what_does_not_serve_first() -> None:
    outdated = [child(0, change="in-place"), child(1, "starting", change="in-place")]
    assert decide(outdated, 2, Bounds(), UNLIMITED).update == ("phi-1",)


def test_a_bad_change_stops_after_the_bound() -> None:
    during = [child(0, "starting"), child(1, change="in-place"), child(2, change="in-place")]
    assert decide(during, 3, Bounds(), UNLIMITED) == Decision()


def test_no_unavailable_workspace_allowed_replaces_instead_of_changing_in_place() -> None:
    outdated = [child(n, change="in-place") for n in range(2)]
    assert decide(outdated, 2, Bounds(max_unavailable=0), UNLIMITED) == Decision(create=1)


def test_manual_updates_only_count_workspaces() -> None:
    outdated = [child(0, change="replace"), child(1, change="in-place")]
    assert decide(outdated, 2, Bounds(is_manual=True), UNLIMITED) == Decision()
    assert decide(outdated, 3, Bounds(is_manual=True), UNLIMITED) == Decision(create=1)


def test_the_node_limit_counts_nodes_that_are_being_deleted() -> None:
    budget = NodeBudget(limit=4, per_workspace=2)
    assert decide([], 3, Bounds(), budget) == Decision(create=2, is_limited=True)
    present = [child(0, nodes=2), child(1, "deleting", nodes=2)]
    assert decide(present, 2, Bounds(), budget) == Decision(is_limited=True)


def test_with_an_unknown_number_of_nodes_one_workspace_is_created() -> None:
    assert decide([], 3, Bounds(), NodeBudget(limit=4)) == Decision(create=1)
    assert decide([child(0, "starting", nodes=0)], 3, Bounds(), NodeBudget(limit=4)) == Decision()


STATES = ("ready", "restarting", "starting", "deleting")
CHANGES: tuple[Change, ...] = ("none", "in-place", "replace")


def observation(rng: random.Random) -> list[Child]:
    """Returns up to eight Workspaces in any state."""
    return [child(n, rng.choice(STATES), rng.choice(CHANGES)) for n in range(rng.randrange(9))]


@pytest.mark.sample(3)
@pytest.mark.parametrize("seed", range(8))
def test_no_decision_violates_the_bounds(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(400):
        children, replicas = observation(rng), rng.randrange(7)
        bounds, limit = Bounds(max_unavailable=rng.randrange(4), max_surge=rng.randrange(4)), rng.randrange(13)
        live = [each for each in children if not each.is_deleting]
        serving = [each for each in live if each.is_serving]
        decision = decide(children, replicas, bounds, NodeBudget(limit=limit, per_workspace=1))
        deleted = [each for each in live if each.name in decision.delete]
        remaining = [each for each in serving if each not in deleted and each.name not in decision.update]
        left = len(live) - len(deleted)

        assert not set(decision.update) & set(decision.delete)
        assert len(deleted) == len(decision.delete), "only live ones, each once"
        assert left + decision.create <= max(replicas + bounds.max_surge, left)
        assert not limit or decision.create == 0 or len(children) + decision.create <= limit
        least = min(len(serving), replicas - bounds.max_unavailable)
        assert len(remaining) >= least, "no more than the bound stop serving"
        if all(each.change == "none" for each in live):
            assert len(remaining) >= min(len(serving), replicas), "scaling down never stops what is needed"


@pytest.mark.sample(3)
@pytest.mark.parametrize("seed", range(10))
def test_every_update_ends(seed: int) -> None:
    """With nodes and pods that work, decisions end with the wanted number of current Workspaces."""
    rng = random.Random(seed)
    for _ in range(40):
        children, replicas, unavailable = observation(rng), rng.randrange(7), rng.randrange(3)
        bounds = Bounds(max_unavailable=unavailable, max_surge=rng.randrange(1 if unavailable == 0 else 0, 3))
        assert [each.change for each in _after(children, replicas, bounds)] == ["none"] * replicas


def _after(children: list[Child], replicas: int, bounds: Bounds) -> list[Child]:
    """Returns the Workspaces after up to 60 decisions, each of which is carried out in full."""
    following = len(children)
    for _ in range(60):
        decision = decide(children, replicas, bounds, UNLIMITED)
        if decision == Decision() and all(each.is_settled for each in children):
            break
        children = [each for each in children if not each.is_deleting and each.name not in decision.delete]
        children = [replace(each, change="none") if each.name in decision.update else each for each in children]
        children = [replace(each, is_serving=True, is_settled=True) for each in children]
        children += [child(following + number, "starting") for number in range(decision.create)]
        following += decision.create
    return children
