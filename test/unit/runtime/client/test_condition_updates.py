"""Conditions as values, and the events about their changes."""

import dataclasses
from typing import Any, Literal

import pytest

from kaito.runtime.cache import Cached
from kaito.runtime.client import ConditionUpdate
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.kinds import Node
from kaito.runtime.kinds.events import Event
from kaito.runtime.meta import Condition
from kaito.runtime.reconcile import Request
from kaito.runtime.testing import World, node

FAILED = ConditionUpdate.false("Launched", "QuotaExceeded", "0 of 8 GPUs left")


def condition(status: str = "False", reason: str = "QuotaExceeded", message: str = "0 of 8 GPUs left") -> Condition:
    return Condition(type="Launched", status=status, reason=reason, message=message)


def test_constructors_set_the_status() -> None:
    assert ConditionUpdate.true("A", "B") == ConditionUpdate("A", "True", "B", "")
    assert ConditionUpdate.false("A", "B", "c").status == "False"
    assert ConditionUpdate.unknown("A", "B", "c").status == "Unknown"
    assert ConditionUpdate.true("A", "B").is_true
    assert not FAILED.is_true
    assert dataclasses.replace(FAILED, type="Ready").type == "Ready"


@pytest.mark.parametrize(
    ("before", "on", "differs"),
    [
        (None, "status", False),
        (None, "reason", True),
        (None, "message", True),
        (condition(), "status", False),
        (condition(), "reason", False),
        (condition(), "message", False),
        (condition("Unknown"), "status", False),
        (condition("True"), "status", True),
        (condition(reason="SoldOut"), "reason", True),
        (condition(reason="SoldOut"), "message", True),
        (condition(message="0 of 4 GPUs left"), "reason", False),
        (condition(message="0 of 4 GPUs left"), "message", True),
        (condition(message="0 of 8 GPUs left; next attempt at 10:00"), "message", False),
    ],
)
def test_a_difference_is_one_of_status_reason_or_message(
    before: Condition | None, on: Literal["status", "reason", "message"], differs: bool
) -> None:
    assert FAILED.differs_from(before, on=on) is differs


async def test_the_status_scope_takes_updates(world: World) -> None:
    async with world.manager(cache=[Cached(Node)]) as manager:
        world.put(node("n1"))
        await world.settle()
        n1 = await manager.api.get(Node, "n1", "")
        async with manager.api.status(n1) as status:
            assert status.set_condition(FAILED)
            assert not status.set_condition(FAILED)
            assert status.find("Launched") is not None
        assert world.condition(Node, "n1", "Launched").reason == "QuotaExceeded"
        first = world.condition(Node, "n1", "Launched").last_transition_time
        await world.advance(60)
        n1 = await manager.api.get(Node, "n1", "")
        async with manager.api.status(n1) as status:
            assert status.set_condition(ConditionUpdate.false("Launched", "SoldOut"))
            assert not status.condition("Launched", False, "SoldOut")
        assert world.condition(Node, "n1", "Launched").last_transition_time == first
        async with manager.api.status(n1) as status:
            wrong: Any = "Yes"
            with pytest.raises(ConfigurationError, match=r"condition Launched: status must be one of True.*not 'Yes'"):
                status.set_condition(ConditionUpdate("Launched", wrong, "SoldOut"))


async def test_a_repeated_failure_makes_one_event(world: World) -> None:
    async with world.manager(cache=[Cached(Node)]) as manager:
        world.put(node("n1"))
        await world.settle()

        async def reconcile(update: ConditionUpdate) -> bool:
            n1 = await manager.api.get(Node, "n1", "")
            request = Request(key=n1.key, object=n1, api=manager.api)
            async with request.status() as status:
                status.set_condition(update)
                return request.event_on_change(update)

        assert await reconcile(FAILED)
        assert not await reconcile(FAILED)
        assert not await reconcile(dataclasses.replace(FAILED, message="0 of 4 GPUs left"))
        assert await reconcile(ConditionUpdate.true("Launched", "Launched", "agent pool gpu is ready"))
        await world.advance(5)
    events = {(event.type, event.reason, event.note) for event in world.list(Event)}
    assert events == {
        ("Warning", "QuotaExceeded", "0 of 8 GPUs left"),
        ("Normal", "Launched", "agent pool gpu is ready"),
    }


async def test_the_event_can_have_words_of_its_own(world: World) -> None:
    async with world.manager(cache=[Cached(Node)]) as manager:
        world.put(node("n1"))
        await world.settle()
        n1 = await manager.api.get(Node, "n1", "")
        request = Request(key=n1.key, object=n1, api=manager.api)
        assert not request.event_on_change(FAILED, on="status")
        assert request.event_on_change(FAILED, on="message", type="Normal", reason="LaunchDelayed", note="no quota")
        await world.advance(5)
    assert [(event.type, event.reason, event.note) for event in world.list(Event)] == [
        ("Normal", "LaunchDelayed", "no quota")
    ]
