"""Steps of a simulated run: what users do and what fails, as data that a seed decides before the run starts.

A `Scenario` is a seed and its steps. It is written as JSON, and its run is the same on every machine. Steps refer to
objects and processes by name and are ignored if these do not exist, so that every subset of the steps is a scenario as
well: `minimize` relies on that.
"""

import json
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, final

Arguments = Mapping[str, Any]
"""Arguments of a step: JSON values by name."""

PACES: Final = (15.0, 90.0, 240.0, 500.0)
"""Mean seconds between two steps; a phase of a run has one of them, so that bursts and calm phases alternate."""

PHASE_SECONDS: Final = 500.0
"""Mean length of a phase."""

KEEP_PROBABILITY: Final = 0.6
"""Probability that a run uses a kind of step. Runs without some kinds reach states that all kinds together prevent."""


class _Known(dict[str, Any]):
    def __missing__(self, name: str) -> str:
        return "-"  # an argument that the scenario leaves to its default


@final
@dataclass(frozen=True, slots=True)
class Step:
    """One action or fault.

    Attributes:
        at: virtual seconds from the start of the run.
        name: name of its `StepKind`.
        arguments: arguments of its function.
    """

    at: float
    name: str
    arguments: Arguments

    def to_json(self) -> list[Any]:
        """Returns the step as a JSON list."""
        return [round(self.at, 3), self.name, dict(self.arguments)]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StepKind:
    """A kind of step.

    Attributes:
        name: name in scenarios and reports, such as `delete-workspace`.
        apply: performs the step; called with the run and the arguments.
        draw: draws the arguments of one step; none by default.
        weight: how often it occurs, relative to the others.
        text: the step in a report, with its arguments in braces: `user deletes {workspace}`.
        is_fault: whether it is a failure of the environment, and not an action of a user.
        is_essential: whether every run may use it; other kinds are left out of some runs.
    """

    name: str
    apply: Callable[..., Awaitable[None]]
    draw: Callable[[random.Random], Arguments] = lambda _: {}
    weight: float = 1.0
    text: str = ""
    is_fault: bool = False
    is_essential: bool = False

    def describe(self, arguments: Arguments) -> str:
        """Returns the step as text."""
        return (self.text or self.name).format_map(_Known(arguments))


@final
@dataclass(frozen=True, slots=True)
class Scenario:
    """A seed and the steps of its run.

    Attributes:
        seed: decides everything that is not in the steps: the order of tasks, delays of requests, UIDs.
        steps: the steps, in the order of their times.
    """

    seed: int
    steps: tuple[Step, ...]

    def with_steps(self, steps: Sequence[Step]) -> "Scenario":
        """Returns a scenario with other steps."""
        return replace(self, steps=tuple(steps))

    def to_json(self) -> str:
        """Returns the scenario as JSON: `{"seed": 7, "steps": [[1.5, "create", {"name": "a"}]]}`."""
        return json.dumps({"seed": self.seed, "steps": [step.to_json() for step in self.steps]})

    @classmethod
    def from_json(cls, text: str) -> "Scenario":
        """Reads what `to_json` returned."""
        document: dict[str, Any] = json.loads(text)
        return cls(document["seed"], tuple(Step(at, name, arguments) for at, name, arguments in document["steps"]))


def draw_scenario(kinds: Sequence[StepKind], seed: int, *, seconds: float) -> Scenario:
    """Returns the scenario of a seed.

    Args:
        kinds: the kinds of steps.
        seed: the seed.
        seconds: virtual time in which steps happen.
    """
    rng = random.Random(f"steps-{seed}")  # noqa: S311 - repeatable, not secret
    used = [kind for kind in kinds if kind.is_essential or rng.random() < KEEP_PROBABILITY]
    weights = [kind.weight for kind in used]
    steps: list[Step] = []
    at, phase_ends, pace = rng.uniform(0.0, 5.0), 0.0, PACES[0]
    while at < seconds and used:
        if at >= phase_ends:
            phase_ends, pace = at + rng.expovariate(1 / PHASE_SECONDS), rng.choice(PACES)
        (kind,) = rng.choices(used, weights)
        steps.append(Step(round(at, 3), kind.name, kind.draw(rng)))
        at += rng.expovariate(1 / pace) if rng.random() < 0.8 else 0.0
    return Scenario(seed, tuple(steps))
