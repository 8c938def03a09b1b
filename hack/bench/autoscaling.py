"""Compares the autoscaler with the formula of a HorizontalPodAutoscaler on the same traces of load, in simulated time.

Both see the same requests, copies that start with the same delay, and the same limits. A copy computes `SLOTS`
requests at the same time; the others wait in the queue of the service. A request that has waited `PATIENCE_SECONDS` is
lost.
The HorizontalPodAutoscaler has the metric of running and waiting requests with the same target per copy, its tolerance,
its default behavior (stabilization 0 s up and 300 s down, up to twice as many or four more copies in 15 s), and an
evaluation every 15 s.
"""

import argparse
import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from hack.bench.report import Column, Report
from kaito.workspace.scaling.controller import EVALUATE_SECONDS
from kaito.workspace.scaling.decision import Policy, decide
from kaito.workspace.scaling.load import Observation

SLOTS: Final = 16
SERVICE_SECONDS: Final = 20.0
PATIENCE_SECONDS: Final = 120.0
START_SECONDS: Final = 480.0
"""From the request of a copy until it serves: a GPU node of AKS, images and weights."""

MOST: Final = 12
START: Final = datetime(2030, 1, 1, tzinfo=UTC)


class Scaler(Protocol):
    """Decides the number of copies."""

    def evaluate(self, now: float, replicas: int, ready: int, requests: int) -> int:
        """Returns the number of copies to request."""
        ...


class Ours:
    """The decision of `kaito.workspace.scaling`, with its defaults."""

    def __init__(self, target: int) -> None:
        self._policy = Policy(least=1, most=MOST, requests=target)
        self._history: list[Observation] = []
        self._last: datetime | None = None

    def evaluate(self, now: float, replicas: int, ready: int, requests: int) -> int:
        """Returns the number of copies to request."""
        moment = START + timedelta(seconds=now)
        self._history.append(Observation(at=moment, copies=ready, reported=ready, requests=requests))
        del self._history[:-300]
        found = decide(replicas, self._history, self._policy, now=moment, last_change=self._last)
        if found.replicas != replicas:
            self._last = moment
        return found.replicas


class PlainHpa:
    """The formula of a HorizontalPodAutoscaler (autoscaling/v2) for a metric of pods.

    Pods that are not ready have no metric. When the ratio is above 1 they count with 0, as in its algorithm.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._recommended: deque[tuple[float, int]] = deque()

    def evaluate(self, now: float, replicas: int, ready: int, requests: int) -> int:
        """Returns the number of copies to request."""
        wanted = self._desired(replicas, ready, requests)
        self._recommended.append((now, wanted))
        while self._recommended[0][0] < now - 300:
            self._recommended.popleft()
        if wanted < replicas:
            wanted = min(replicas, max(count for _, count in self._recommended))
        limit = max(2 * replicas, replicas + 4)
        return max(1, min(wanted, limit, MOST))

    def _desired(self, replicas: int, ready: int, requests: int) -> int:
        if not ready:
            return replicas
        ratio = requests / ready / self._target
        if abs(ratio - 1) <= 0.1:
            return replicas
        missing = replicas - ready
        if not missing:
            return math.ceil(ready * ratio)
        adjusted = requests / (ready + (missing if ratio > 1 else 0)) / self._target
        if ratio < 1:
            adjusted = (requests + missing * self._target) / replicas / self._target
        if abs(adjusted - 1) <= 0.1 or (ratio > 1) != (adjusted > 1):
            return replicas
        return math.ceil(replicas * adjusted)


@dataclass(slots=True)
class Result:
    """What one run measured."""

    requests: int = 0
    lost: int = 0
    waited: list[float] = field(default_factory=list[float])
    copy_seconds: float = 0.0
    changes: int = 0

    @property
    def node_hours(self) -> float:
        """Hours of all nodes, from the request of a copy to its end."""
        return self.copy_seconds / 3600

    def waited_seconds(self, share: float) -> float:
        """Returns a quantile of the time in the queue of the requests that were served."""
        found = sorted(self.waited)
        return found[min(int(share * len(found)), len(found) - 1)] if found else 0.0


Rate = Callable[[float], float]
"""Requests per second at a time."""


def office_day(now: float) -> float:
    """A day: a night of 0.2 requests per second, a morning that rises for two hours, and an evening that falls."""
    hour = (now / 3600) % 24
    rise, fall = min(max((hour - 7) / 2, 0.0), 1.0), min(max((hour - 17) / 2, 0.0), 1.0)
    return 0.2 + 6.0 * (rise - fall)


def bursts(now: float) -> float:
    """Bursts of five minutes in each hour, eight times the base load."""
    return 4.0 if now % 3600 < 300 else 0.5


def step(now: float) -> float:
    """A step to ten times the load after an hour, for two hours."""
    return 6.0 if 3600 <= now < 10800 else 0.6


def sawtooth(now: float) -> float:
    """Load that doubles and halves every four minutes."""
    return 4.0 if (now // 240) % 2 else 2.0


TRACES: Final[dict[str, tuple[Rate, float]]] = {
    "office day": (office_day, 24 * 3600.0),
    "step": (step, 4 * 3600.0),
    "bursts": (bursts, 6 * 3600.0),
    "sawtooth": (sawtooth, 4 * 3600.0),
}
"""Rates and lengths by name."""


def simulate(scaler: Scaler, rate: Rate, seconds: float, *, seed: int) -> Result:
    """Runs a trace in steps of one second; requests arrive at random with the rate."""
    rng, result = random.Random(seed), Result()  # noqa: S311 - a simulation, no secret
    queue: deque[float] = deque()
    running: list[float] = []
    starting: list[float] = []
    replicas = ready = 1
    now = 0.0
    while now < seconds:
        while starting and starting[0] <= now:
            starting.pop(0)
            ready += 1
        while running and running[0] <= now:
            heapq.heappop(running)
        while queue and now - queue[0] > PATIENCE_SECONDS:
            queue.popleft()
            result.lost += 1
        for _ in range(_arrivals(rng, rate(now))):
            result.requests += 1
            queue.append(now)
        while queue and len(running) < ready * SLOTS:
            result.waited.append(now - queue.popleft())
            heapq.heappush(running, now + rng.expovariate(1 / SERVICE_SECONDS))
        if now % EVALUATE_SECONDS == 0:
            wanted = scaler.evaluate(now, replicas, ready, len(running) + len(queue))
            result.changes += wanted != replicas
            ready -= _remove(replicas - wanted, starting)
            starting += [now + START_SECONDS] * (wanted - replicas)
            replicas = wanted
        result.copy_seconds += ready + len(starting)
        now += 1.0
    return result


def _remove(surplus: int, starting: list[float]) -> int:
    """Removes copies that start first; returns the number of ready ones to remove, which finish their requests."""
    cancelled = min(max(surplus, 0), len(starting))
    if cancelled:
        del starting[-cancelled:]
    return max(surplus, 0) - cancelled


def _arrivals(rng: random.Random, rate: float) -> int:
    """Returns a number of a Poisson process (Knuth)."""
    limit, count, product = math.exp(-rate), 0, rng.random()
    while product > limit:
        count, product = count + 1, product * rng.random()
    return count


SCALERS: Final[dict[str, Callable[[int], Scaler]]] = {"Kaito": Ours, "HPA": PlainHpa}

COLUMNS: Final = (
    Column("lost", "requests lost", "{:.2%}"),
    Column("p50", "queue p50", "{:.0f} s"),
    Column("p95", "p95", "{:.0f} s"),
    Column("p99", "p99", "{:.0f} s"),
    Column("node_hours", "node hours", "{:.1f}"),
    Column("changes", "changes", "{:.0f}"),
)


def _figures(result: Result) -> dict[str, float]:
    return {
        "lost": result.lost / max(result.requests, 1),
        "p50": result.waited_seconds(0.5),
        "p95": result.waited_seconds(0.95),
        "p99": result.waited_seconds(0.99),
        "node_hours": result.node_hours,
        "changes": float(result.changes),
    }


def benchmark(arguments: Sequence[str]) -> list[Report]:
    """Runs every trace with both scalers."""
    parser = argparse.ArgumentParser(prog="python -m hack.bench autoscaling", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2, help="runs of each trace with other requests")
    parser.add_argument("--target", type=int, default=12, help="target of running and waiting requests per copy")
    parser.add_argument("--traces", nargs="+", choices=TRACES, default=list(TRACES))
    options = parser.parse_args(arguments)
    turns = {
        f"{trace}, {name}": [
            _figures(simulate(make(options.target), *TRACES[trace], seed=seed)) for seed in range(options.seeds)
        ]
        for trace in options.traces
        for name, make in SCALERS.items()
    }
    rows = {name: {key: sum(turn[key] for turn in runs) / len(runs) for key in runs[0]} for name, runs in turns.items()}
    settings = {
        "seeds": options.seeds,
        "target": options.target,
        "slots": SLOTS,
        "service_seconds": SERVICE_SECONDS,
        "patience_seconds": PATIENCE_SECONDS,
        "start_seconds": START_SECONDS,
        "most": MOST,
    }
    about = "means over the seeds; the same requests for both scalers"
    return [Report("autoscaling", about, settings, COLUMNS, rows, turns)]
