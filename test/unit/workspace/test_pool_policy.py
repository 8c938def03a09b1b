"""The decision about the number of nodes of a NodePool: tables, and a bound over random histories."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kaito.api import NodeClaim
from kaito.workspace.claim_policy import MAX_FAILURES, ProvisionAttempts
from kaito.workspace.pool_policy import PoolDecision, PoolState, decide_pool, pause_of

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def claim(name: str, *, launched: bool = True, ready: bool = True) -> NodeClaim:
    conditions = [
        {"type": kind, "status": "True" if value else "Unknown", "reason": kind,
         "lastTransitionTime": "2030-01-01T00:00:00Z"}
        for kind, value in (("Launched", launched), ("Ready", launched and ready))
    ]  # fmt: skip
    reference = {"group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": "default"}
    return NodeClaim.model_validate(
        {
            "metadata": {"name": name},
            "spec": {"nodeClassRef": reference, "requirements": []},
            "status": {"conditions": conditions},
        }
    )


def decide(wanted: int, replicas: int | None, *claims: NodeClaim, **state: Any) -> PoolDecision:
    given: dict[str, Any] = {"now": NOW, "attempts": ProvisionAttempts(), **state}
    return decide_pool(PoolState(wanted=wanted, replicas=replicas, claims=claims, **given))


def failed(failures: int, seconds: float) -> ProvisionAttempts:
    """A record of losses, the last one so many seconds ago."""
    return ProvisionAttempts(failures=failures, backoff_started_at=NOW - timedelta(seconds=seconds), lost=("z",))


A, B, C = claim("a"), claim("b"), claim("c")
PENDING = claim("p", launched=False)


@pytest.mark.parametrize(
    ("wanted", "replicas", "claims", "expected", "grows"),
    [
        (0, None, (), None, False),
        (2, None, (), 2, True),
        (3, 1, (A,), 3, True),
        (2, 2, (A, B), 2, False),
        (2, 2, (A, B, C), 2, False),  # a node is being replaced
        (1, 3, (A, B, C), 3, False),  # nodes with pods are left to steps.surplus
        (1, 3, (A, PENDING), 1, False),
        (0, 1, (PENDING,), 0, False),
    ],
)
def test_the_number_of_nodes(
    wanted: int, replicas: int | None, claims: tuple[NodeClaim, ...], expected: int | None, *, grows: bool
) -> None:
    decision = decide(wanted, replicas, *claims)
    assert (decision.replicas, decision.grows, decision.lost) == (expected, grows, ())


def test_the_first_loss_is_left_to_karpenter_and_the_second_pauses_the_pool() -> None:
    first = decide(2, 2, A, PENDING, expected=frozenset({"a", "b"}))
    assert (first.replicas, first.lost, first.attempts.failures, first.next_creation_at) == (2, ("b",), 1, None)
    second = decide(2, 2, A, PENDING, expected=frozenset({"a", "x"}), attempts=failed(1, 5))
    assert (second.replicas, second.attempts.failures) == (1, 2)
    assert second.next_creation_at == NOW + timedelta(seconds=30)
    counted = decide(2, 1, A, expected=frozenset({"a", "x"}), attempts=second.attempts)
    assert counted.attempts == second.attempts, "a loss counts once, and the end of a claim in a pause does not"
    over = decide(2, 1, A, attempts=failed(2, 31))
    assert (over.replicas, over.grows, over.next_creation_at) == (2, True, None)


def test_pauses_grow_up_to_a_limit() -> None:
    pauses = [pause_of(failed(failures, 0)).total_seconds() for failures in (0, 1, 2, 3, 4, 6, 7, MAX_FAILURES)]
    assert pauses == [0, 0, 30, 60, 120, 480, 900, 900]


def test_a_limit_of_the_cost_keeps_the_pool() -> None:
    later = NOW + timedelta(seconds=60)
    grown = decide(3, 1, A, not_before=later)
    assert (grown.replicas, grown.grows, grown.next_creation_at, grown.requeue_at) == (1, False, later, later)
    assert decide(3, None, not_before=later).replicas is None
    assert decide(1, 1, A, not_before=later).next_creation_at is None


def test_a_series_of_losses_ends_after_a_stable_time() -> None:
    young = decide(1, 1, A, attempts=failed(3, 700), ready_since=NOW - timedelta(seconds=599))
    assert (young.attempts.failures, young.requeue_at) == (3, NOW + timedelta(seconds=1))
    assert decide(1, 1, A, attempts=failed(3, 700)).requeue_at == NOW + timedelta(seconds=600)
    stable = decide(1, 1, A, attempts=failed(3, 700), ready_since=NOW - timedelta(seconds=600))
    assert stable.attempts == ProvisionAttempts()
    lost = decide(1, 1, expected=frozenset({"a"}), attempts=failed(9, 999), ready_since=NOW - timedelta(seconds=600))
    assert lost.attempts.failures == 1


def test_a_clock_that_was_set_back_does_not_extend_a_pause() -> None:
    assert decide(1, 0, attempts=failed(2, -9999)).next_creation_at == NOW + timedelta(seconds=30)


@pytest.mark.sample(5)
@pytest.mark.parametrize("seed", range(30))
def test_a_cloud_that_refuses_every_launch_is_asked_rarely(seed: int) -> None:
    """Karpenter creates a claim whenever one is missing, and the cloud refuses it at a random time."""
    rng = random.Random(seed)
    replicas: int | None = None
    attempts, names, created = ProvisionAttempts(), frozenset[str](), 0
    live: list[NodeClaim] = []
    for second in range(3600):
        if rng.random() < 0.8:
            live = []
        while len(live) < (replicas or 0):
            created += 1
            live.append(claim(f"n{created}", launched=False))
        live = live[: replicas or 0]
        state = PoolState(
            now=NOW + timedelta(seconds=second),
            wanted=1,
            replicas=replicas,
            claims=live,
            attempts=attempts,
            expected=names,
        )
        decision = decide_pool(state)
        assert decision.replicas in {None, 0, 1}
        replicas, attempts = decision.replicas, decision.attempts
        names = frozenset(each.name for each in live)
    assert created <= 40, created
