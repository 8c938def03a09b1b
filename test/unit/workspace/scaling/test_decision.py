"""The decision about the number of copies: targets, windows, steps, limits, and traces of load in virtual time."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from kaito.workspace.scaling.decision import Decision, Policy, decide
from kaito.workspace.scaling.load import Observation

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
POLICY = Policy(least=1, most=10, requests=10, up_seconds=30, down_seconds=600)


def seen(seconds_ago: float, requests: float, *, copies: int = 2, reported: int | None = None) -> Observation:
    at = NOW - timedelta(seconds=seconds_ago)
    return Observation(at=at, copies=copies, reported=copies if reported is None else reported, requests=requests)


def steady(requests: float, *, copies: int = 2, seconds: int = 600) -> list[Observation]:
    return [seen(ago, requests, copies=copies) for ago in range(seconds, -1, -15)]


def decided(replicas: int, history: list[Observation], policy: Policy = POLICY, since: float | None = None) -> Decision:
    last = None if since is None else NOW - timedelta(seconds=since)
    return decide(replicas, history, policy, now=NOW, last_change=last)


def test_load_within_the_target_changes_nothing() -> None:
    assert decided(2, steady(20)).reason == "Steady"


def test_copies_are_added_for_the_load_with_its_cause() -> None:
    found = decided(2, steady(35))
    assert (found.replicas, found.reason) == (4, "Load")
    assert found.message == "35 requests run or wait, and the target is 10 for each copy"


def test_a_short_peak_adds_nothing() -> None:
    assert decided(2, [*steady(20)[:-1], seen(0, 90)]).replicas == 2
    assert decided(2, [seen(30, 20), seen(15, 90), seen(0, 90)]).replicas == 2
    assert decided(2, [seen(45, 20), seen(30, 90), seen(15, 90), seen(0, 90)]).replicas > 2


def test_copies_that_start_are_not_counted_twice() -> None:
    assert decided(4, steady(35, copies=2)).replicas == 4
    by_queue = replace(POLICY, requests=None, queue_seconds=5)
    history = [replace(each, queue_seconds=40.0) for each in steady(0, copies=2)]
    assert decided(2, history, by_queue).replicas == 4
    assert decided(4, history, by_queue).replicas == 4


def test_steps_are_bounded_per_minute() -> None:
    policy = replace(POLICY, up_step=3)
    assert decided(2, steady(100), policy).replicas == 5
    assert decided(5, steady(100), policy, since=30).reason == "RateLimited"
    assert decided(5, steady(100), policy, since=-86400).reason == "Load", "recorded with a clock ahead"
    assert decided(5, steady(100), policy, since=60).replicas == 8
    assert decided(8, steady(100), policy, since=60).replicas == 10
    assert decided(10, steady(500), policy, since=60).reason == "Limit"


def test_copies_are_removed_after_the_window_one_by_one() -> None:
    assert decided(5, steady(20, copies=5)).replicas == 4
    assert decided(5, steady(20, copies=5, seconds=300)).reason == "Stabilizing"
    peak = [seen(590, 45, copies=5), *steady(20, copies=5)[1:]]
    assert decided(5, peak).reason == "Stabilizing"
    assert decided(4, steady(20, copies=4), since=30).reason == "RateLimited"


@pytest.mark.parametrize("seconds", [0, 10, 30, 37, 60])
def test_short_windows_end_too(seconds: float) -> None:
    policy = replace(POLICY, down_seconds=seconds)
    assert decided(3, steady(5, copies=3), policy).replicas == 2


def test_the_last_copy_stays() -> None:
    assert decided(1, steady(0, copies=1)).replicas == 1
    assert decided(2, steady(0, copies=2)).replicas == 1


def test_unknown_load_removes_nothing() -> None:
    assert decided(3, []).reason == "UnknownLoad"
    assert decided(3, [seen(0, 0, copies=0)]).reason == "UnknownLoad"
    partly = [*steady(5, copies=3)[:-1], seen(0, 5, copies=3, reported=2)]
    assert decided(3, partly).reason == "UnknownLoad"
    rarely = [replace(each, reported=3 if n % 3 else 2) for n, each in enumerate(steady(5, copies=3))]
    assert decided(3, rarely).reason == "UnknownLoad"
    once = steady(5, copies=3)
    once[10] = replace(once[10], reported=2)
    assert decided(3, once).replicas == 2, "one failed poll does not keep a copy"
    by_cache = replace(POLICY, cache_usage=0.8)
    assert decided(3, steady(5, copies=3), by_cache).reason == "UnknownLoad"


def test_copies_that_do_not_report_count_with_the_load_of_the_others() -> None:
    partly = [seen(ago, 30, copies=2, reported=1) for ago in (30, 15, 0)]
    assert decided(2, partly).replicas == 6


@pytest.mark.parametrize(("usage", "copies"), [(0.85, 2), (0.89, 3), (1.0, 3), (0.95, 3)])
def test_the_cache_is_a_ratio_with_a_tolerance(usage: float, copies: int) -> None:
    policy = replace(POLICY, requests=None, cache_usage=0.8)
    assert decided(2, [replace(each, cache_usage=usage) for each in steady(0)], policy).replicas == copies


def test_the_largest_recommendation_decides() -> None:
    policy = replace(POLICY, queue_seconds=5)
    history = [replace(each, queue_seconds=10.0) for each in steady(12)]
    found = decided(2, history, policy)
    assert found.replicas == 4
    assert found.message == "requests wait 10.0 s, and the target is 5 s"


def test_limits_and_schedule_hold_at_once() -> None:
    assert decided(12, steady(500)) == Decision(replicas=10, reason="Limit", message="maxReplicas is 10")
    assert decided(1, [], replace(POLICY, least=2)).replicas == 2
    scheduled = replace(POLICY, scheduled=4)
    assert decided(1, [], scheduled) == Decision(
        replicas=4, reason="Schedule", message="the schedule requires 4 copies now"
    )
    assert decided(4, steady(0, copies=4), scheduled).replicas == 4
    assert decided(1, [], replace(POLICY, scheduled=40)).replicas == 10, "maxReplicas limits the schedule"


def test_a_restart_forgets_the_history_and_removes_nothing_for_a_window() -> None:
    assert decided(6, [seen(0, 5, copies=6)]).reason == "Stabilizing"


def test_a_sawtooth_does_not_flap() -> None:
    """Load that rises and falls every two minutes keeps the copies of its peaks."""
    history: list[Observation] = []
    replicas, changes, last = 2, 0, None
    for step in range(0, 7200, 15):
        now = NOW + timedelta(seconds=step)
        requests = 45.0 if (step // 120) % 2 else 15.0
        history.append(Observation(at=now, copies=replicas, reported=replicas, requests=requests))
        found = decide(replicas, history, POLICY, now=now, last_change=last)
        if found.replicas != replicas:
            replicas, changes, last = found.replicas, changes + 1, now
    assert replicas == 5
    assert changes == 1
