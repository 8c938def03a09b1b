"""The merge and ordering rules of the priority queue, on a clock that the test sets."""

import random
from typing import Any

import pytest

from kaito.runtime.errors import InvariantError
from kaito.runtime.workqueue import Backoff, BucketLimiter, Cause, ExponentialLimiter, Item, MaxOfLimiter, WorkQueue


class Hands:
    """A queue with a clock to turn and a worker to take keys by hand."""

    def __init__(self, **options: Any) -> None:
        self.now = 1000.0
        self.queue: WorkQueue[str] = WorkQueue("test", now=lambda: self.now, **options)

    def take(self) -> str | None:
        item = self.queue.take()
        return None if item is None else item.key

    def take_all(self) -> list[str]:
        keys: list[str] = []
        while (key := self.take()) is not None:
            keys.append(key)
        return keys


@pytest.mark.conformance(1)
def test_a_key_added_twice_is_handed_out_once() -> None:
    hands = Hands()
    hands.queue.add("x")
    hands.queue.add("x")
    assert hands.take_all() == ["x"]
    assert hands.queue.stats.adds == 1


@pytest.mark.conformance(2)
def test_adds_during_processing_collapse_into_one_more_run() -> None:
    hands = Hands()
    hands.queue.add("x")
    assert hands.take() == "x"
    for _ in range(3):
        hands.queue.add("x")
    assert hands.take() is None
    assert len(hands.queue) == 0
    hands.queue.done("x")
    assert hands.take_all() == ["x"]
    hands.queue.done("x")
    assert hands.take() is None


@pytest.mark.conformance(3)
@pytest.mark.parametrize("seed", range(3))
def test_no_two_workers_hold_one_key_and_no_add_is_lost(seed: int) -> None:
    rng = random.Random(seed)
    hands = Hands()
    held: set[str] = set()
    owed: dict[str, bool] = {}
    for _ in range(10_000):
        move = rng.random()
        if move < 0.5:
            key = f"k{rng.randrange(20)}"
            hands.queue.add(key, priority=rng.choice([-100, 0, 5]), after=rng.choice([0.0, 0.0, 0.5]))
            owed[key] = True
        elif move < 0.8:
            if (taken := hands.take()) is not None:
                assert taken not in held
                held.add(taken)
                owed[taken] = False
        elif held:
            key = rng.choice(sorted(held))
            held.remove(key)
            hands.queue.done(key)
        hands.now += rng.choice([0.0, 0.0, 0.01])
    for key in sorted(held):
        hands.queue.done(key)
    hands.now += 1
    assert set(hands.take_all()) == {key for key, waits in owed.items() if waits}


@pytest.mark.conformance(4)
def test_a_waiting_key_keeps_the_earlier_time() -> None:
    hands = Hands()
    hands.queue.add("x", after=10)
    hands.queue.add("x", after=3)
    hands.queue.add("x", after=20)
    hands.now += 2.9
    assert hands.take() is None
    hands.now += 0.1
    assert hands.take_all() == ["x"]
    hands.queue.done("x")
    hands.now += 60
    assert hands.take() is None


@pytest.mark.conformance(5)
def test_an_immediate_add_replaces_the_timer() -> None:
    hands = Hands()
    hands.queue.add("x", after=10)
    hands.queue.add("x")
    assert hands.take_all() == ["x"]
    hands.queue.done("x")
    hands.now += 20
    assert hands.take() is None


@pytest.mark.conformance(6)
def test_a_raised_priority_goes_to_the_end_of_its_level_and_is_never_lowered() -> None:
    hands = Hands()
    hands.queue.add("low", priority=-100)
    hands.queue.add("a")
    hands.queue.add("b")
    hands.queue.add("low", priority=0)
    hands.queue.add("a", priority=-100)
    assert hands.queue.depth() == {0: 3}
    assert hands.take_all() == ["a", "b", "low"]


@pytest.mark.conformance(6)
def test_a_waiting_key_takes_the_higher_priority_along() -> None:
    hands = Hands()
    hands.queue.add("x", priority=-100, after=5)
    hands.queue.add("x", priority=7, after=9)
    hands.now += 5
    item = hands.queue.take()
    assert item is not None
    assert item.priority == 7


@pytest.mark.conformance(7)
def test_order_inside_a_level_is_the_order_of_becoming_ready() -> None:
    hands = Hands()
    hands.queue.add("late", after=2)
    hands.queue.add("soon", after=1)
    hands.queue.add("first")
    hands.now += 3
    hands.queue.add("last")
    assert hands.take_all() == ["first", "soon", "late", "last"]


@pytest.mark.conformance(8)
def test_rate_limited_adds_double_up_to_the_cap() -> None:
    limiter = ExponentialLimiter[str](Backoff(base=0.05, cap=60), jitter=lambda: 1.0)
    hands = Hands(limiter=limiter)
    delays = [limiter.when("x") for _ in range(13)]
    assert delays[:4] == [0.05, 0.1, 0.2, 0.4]
    assert delays[-2:] == [60, 60]
    hands.queue.forget("x")
    assert len(limiter) == 0
    hands.queue.add("x", rate_limited=True)
    hands.now += 0.049
    assert hands.take() is None
    hands.now += 0.002
    item = hands.queue.take()
    assert item is not None
    assert item.attempt == 2


@pytest.mark.conformance(8)
def test_full_jitter_spreads_over_the_whole_wait() -> None:
    backoff = Backoff(base=1, cap=60)
    rng = random.Random(1)
    delays = [backoff.delay(3, rng.random) for _ in range(500)]
    assert min(delays) < 0.5
    assert 7.5 < max(delays) <= 8
    assert backoff.delay(5000, lambda: 1.0) == 60


def test_with_a_delay_and_a_rate_limit_the_shorter_one_counts() -> None:
    hands = Hands(limiter=ExponentialLimiter[str](Backoff(base=4, jitter=False)))
    hands.queue.add("x", after=1, rate_limited=True)
    hands.now += 1
    assert hands.take() == "x"
    assert hands.queue.failures("x") == 1


def _runs_until(hands: Hands, key: str, *, limit: float) -> float | None:
    """Saturate the queue: one worker, a run takes 0.1 s, one fresh key arrives for each run. When does `key` run?"""
    started, fresh = hands.now, 0
    while hands.now - started < limit:
        hands.queue.add(f"fresh-{fresh}")
        fresh += 1
        taken = hands.take()
        assert taken is not None
        if taken == key:
            return hands.now - started
        hands.now += 0.1
        hands.queue.done(taken)
    return None


@pytest.mark.conformance(9)
def test_ageing_lets_the_initial_list_through_under_saturation() -> None:
    hands = Hands()
    hands.queue.add("old", priority=-100)
    waited = _runs_until(hands, "old", limit=600)
    assert waited is not None
    assert 59 <= waited <= 62


@pytest.mark.conformance(9)
def test_strict_priorities_starve() -> None:
    hands = Hands(aging_step=None)
    hands.queue.add("old", priority=-100)
    assert _runs_until(hands, "old", limit=600) is None


@pytest.mark.conformance(11)
def test_depth_counts_ready_keys_and_retries_counts_delayed_adds() -> None:
    hands = Hands()
    hands.queue.add("held")
    hands.take()
    hands.queue.add("held")
    hands.queue.add("ready")
    hands.queue.add("waiting", after=5)
    hands.queue.add("waiting", after=9)
    assert len(hands.queue) == 1
    assert hands.queue.depth() == {0: 1}
    assert hands.queue.delayed == 1
    assert hands.queue.stats.retries == 2
    hands.now += 5
    assert len(hands.queue) == 2
    assert hands.queue.stats.adds == 4


def test_spacing_keeps_runs_of_one_key_apart() -> None:
    hands = Hands(spacing=10)
    hands.queue.add("x")
    assert hands.take() == "x"
    hands.now += 4
    hands.queue.done("x")
    hands.queue.add("x")
    hands.queue.add("other")
    assert hands.take_all() == ["other"]
    hands.now += 6
    assert hands.take() == "x"
    hands.queue.done("x")
    hands.now += 10
    hands.queue.add("x")
    assert hands.take() == "x"


def test_causes_are_kept_merged_and_bounded() -> None:
    hands = Hands()
    for number in range(12):
        hands.queue.add("x", cause=Cause("Pod", f"default/p{number}", "update", at=float(number)))
    hands.queue.add("x", cause=Cause("Pod", "default/p0", "update", at=99.0))
    item = hands.queue.take()
    assert item is not None
    assert [cause.object for cause in item.causes] == [f"default/p{number}" for number in range(8)]
    assert item.causes[0].at == 0.0
    assert str(item.causes[0]) == "update Pod default/p0"


def test_done_without_a_matching_get_is_a_bug_of_the_caller() -> None:
    with pytest.raises(InvariantError, match="done"):
        Hands().queue.done("x")


def test_a_busy_timer_heap_is_rebuilt() -> None:
    hands = Hands()
    for _ in range(5000):
        hands.queue.add("x", after=30)
        hands.queue.add("x")
        taken = hands.take()
        assert taken == "x"
        hands.queue.done("x")
    hands.queue.add("y", after=1)
    hands.now += 1
    assert hands.take_all() == ["y"]
    assert len(hands.queue.dump()) == 1


def test_the_dump_tells_state_and_causes() -> None:
    hands = Hands()
    hands.queue.add("held", priority=3, cause=Cause("Pod", "default/a", "create", at=0.0))
    hands.take()
    hands.queue.add("held")
    hands.queue.add("later", after=7)
    rows = {(row.key, row.state): row for row in hands.queue.dump()}
    assert set(rows) == {("held", "processing"), ("held", "parked"), ("later", "waiting")}
    assert rows["held", "processing"].causes[0].kind == "Pod"
    assert rows["later", "waiting"].seconds == 7


def test_a_bucket_lets_a_burst_through_and_then_its_rate() -> None:
    now = 0.0
    bucket = BucketLimiter[str](10, 2, now=lambda: now)
    assert [bucket.when("x") for _ in range(4)] == pytest.approx([0, 0, 0.1, 0.2])
    now = 10.0
    assert [bucket.when("x") for _ in range(3)] == pytest.approx([0, 0, 0.1])


def test_the_strictest_of_several_limiters_holds() -> None:
    now = 0.0
    both = MaxOfLimiter[str](ExponentialLimiter(Backoff(base=1, jitter=False)), BucketLimiter(1, 1, now=lambda: now))
    assert [both.when("x") for _ in range(3)] == [1, 2, 4]
    assert both.failures("x") == 3
    both.forget("x")
    assert both.failures("x") == 0


@pytest.mark.parametrize("wrong", [{"base": 0}, {"base": 2, "cap": 1}, {"factor": 0.5}])
def test_a_backoff_that_cannot_be_meant_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="backoff needs"):
        Backoff(**wrong)  # type: ignore[arg-type]


def test_items_tell_how_long_they_waited() -> None:
    hands = Hands()
    hands.queue.add("x", after=5)
    hands.now += 8
    item = hands.queue.take()
    assert item == Item("x", 0, (), 1, 3.0)
    assert hands.queue.stats.queue_duration.total == 3.0
