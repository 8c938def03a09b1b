"""Short scenarios: fewer steps for fewer Workspaces, so that a campaign of many seeds takes less time.

They find what needs one or two objects and one or two faults. What needs more is left to whole scenarios.
"""

import random
from typing import Final

from kaito.runtime.testing.simulate import Scenario, Step
from kaito.runtime.testing.simulate.runner import step_kinds
from kaito.runtime.testing.simulate.steps import draw_scenario
from kaito.simulation.simulation import KaitoSimulation
from kaito.simulation.workspaces import WORKSPACES

SHORT_SECONDS: Final = 600.0
"""Time in which steps happen."""

STEPS: Final = 8
"""Largest number of steps."""

REST_SECONDS: Final = 120.0
"""Time in which little may be written after everything has converged."""


def short_scenario(seed: int) -> Scenario:
    """Returns the short scenario of a seed: the steps of two Workspaces, or of one, and of everything else.

    A Workspace is created first, because one that exists is what most steps need.
    """
    kinds = step_kinds(KaitoSimulation())
    rng = random.Random(f"short-{seed}")  # noqa: S311 - repeatable
    chosen = rng.sample(WORKSPACES, rng.choice((1, 1, 2)))
    drawn = draw_scenario(list(kinds.values()), seed, seconds=SHORT_SECONDS)
    steps = [step for step in drawn.steps if _is_of(step, chosen)]
    if len(steps) >= STEPS:
        steps = sorted(rng.sample(steps, STEPS - 1), key=lambda step: step.at)
    create = dict(kinds["create"].draw(rng))
    create["namespace"], create["name"] = chosen[0]
    return Scenario(seed, (Step(0.5, "create", create), *steps))


def _is_of(step: Step, chosen: list[tuple[str, str]]) -> bool:
    """Whether a step is about one of these Workspaces, or not about one by name."""
    name = step.arguments.get("name")
    return name is None or (step.arguments.get("namespace"), name) in chosen
