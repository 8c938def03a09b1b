"""The table of situations: a scenario, and what the diagnosis must contain."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from kaito.diagnosis import Diagnosis
from test.unit.diagnosis.conftest import Scene


@dataclass(frozen=True)
class Expected:
    """What the diagnosis must contain."""

    reason: str
    on: str
    """Kind of the object that has the cause."""
    message: str
    """Regular expression in the message."""
    since: float | None
    """Seconds between the beginning of the cause and the diagnosis; None if it depends on the scenario."""
    next: str
    """Regular expression in one of the next steps."""
    remedy: str
    """Regular expression in one of the lines of advice; empty if there is nothing to do."""
    at: float | None = None
    """Seconds until the first timed step; None if no step has a time."""
    state: str = "failing"
    serving: bool = False
    tolerance: float = 2.0
    chain: dict[str, str] = field(default_factory=dict[str, str])
    """State of the links by kind."""


Scenario = Callable[[Scene], Awaitable[None]]


class Table(dict[str, tuple[Scenario, Expected]]):
    """Scenarios by name, each with the diagnosis that it leads to."""

    def add(self, expected: Expected) -> Callable[[Scenario], Scenario]:
        """Adds a scenario."""

        def add(scenario: Scenario) -> Scenario:
            self[scenario.__name__] = (scenario, expected)
            return scenario

        return add

    async def check(self, name: str, scene: Scene) -> None:
        """Runs a scenario, and compares the diagnosis with the expected one."""
        scenario, expected = self[name]
        await scenario(scene)
        found = await scene.explain()
        cause = found.cause
        assert cause is not None
        described = f"{cause.reason} on {cause.kind} {cause.name}: {cause.message}\n{found.next}\n{found.advice}"
        assert re.fullmatch(expected.reason, cause.reason), described
        assert cause.kind == expected.on, described
        assert re.search(expected.message, cause.message), described
        if expected.since is not None:
            assert cause.since is not None, described
            age = (scene.world.now - cause.since).total_seconds()
            assert age == pytest.approx(expected.since, abs=expected.tolerance), described
        assert any(re.search(expected.next, step.what) for step in found.next), described
        if expected.at is not None:
            first = next(step.at for step in found.next if step.at is not None)
            left = (first - scene.world.now).total_seconds()
            assert left == pytest.approx(expected.at, abs=expected.tolerance), described
        assert all(step.at is None or step.at >= scene.world.now - timedelta(seconds=1) for step in found.next), (
            described
        )
        if expected.remedy:
            assert any(re.search(expected.remedy, line) for line in found.advice), described
        assert not any("{" in line.replace("{.status", "") for line in found.advice), described
        assert found.state == expected.state, described
        assert found.serving is expected.serving
        states = _states(found)
        for kind, state in expected.chain.items():
            assert states.get(kind, "") == state, found.chain


def _states(found: Diagnosis) -> dict[str, Any]:
    states: dict[str, Any] = {}
    for link in found.chain:
        states.setdefault(link.kind, link.state)
    return states
