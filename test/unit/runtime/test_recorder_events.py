"""Events: combined, counted, limited, and never blocking a caller."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence

import pytest

from kaito.runtime.client import Client
from kaito.runtime.clock import monotonic
from kaito.runtime.kinds import ConfigMap, Event, Node
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.recorder import BUCKET_SIZE, QUEUE_LIMIT, EventRecorder
from kaito.runtime.tasks import TaskScope
from kaito.runtime.testing import World

SUBJECT = ConfigMap(metadata=ObjectMeta(name="subject", namespace="default", uid="u-1"))


@pytest.fixture
def dropped() -> list[str]:
    return []


def make(world: World, dropped: list[str]) -> EventRecorder:
    client = Client(world.transport(), field_manager="test")
    return EventRecorder(client, component="tester", clock=world.clock, rng=random.Random(1), on_drop=dropped.append)


@pytest.fixture
async def recorder(world: World, dropped: list[str]) -> AsyncIterator[EventRecorder]:
    recorder = make(world, dropped)
    world.track(recorder)
    async with TaskScope("test") as scope:
        scope.spawn(recorder.run(), name="events")
        yield recorder


def say(recorder: EventRecorder, note: str, reason: str = "Happened", subject: ConfigMap = SUBJECT) -> None:
    recorder.record(subject, "Normal", reason, note, action="Test")


def sent(world: World) -> Sequence[Event]:
    return sorted(world.list(Event), key=lambda event: event.name)


async def test_an_event_says_who_what_and_why(recorder: EventRecorder, world: World) -> None:
    related = Node(metadata=ObjectMeta(name="n"))
    recorder.record(SUBJECT, "Warning", "Broken", "it broke", action="Mend", related=related)
    await world.settle()
    (event,) = sent(world)
    assert (event.type, event.reason, event.note, event.action) == ("Warning", "Broken", "it broke", "Mend")
    assert (event.regarding.kind, event.regarding.name, event.regarding.uid) == ("ConfigMap", "subject", "u-1")
    assert event.related is not None
    assert event.related.kind == "Node"
    assert event.reporting_controller == "tester"
    assert event.reporting_instance.startswith("tester-")
    assert event.namespace == "default"
    assert event.event_time == world.now
    assert event.series is None


async def test_events_of_cluster_scoped_objects_go_to_default(recorder: EventRecorder, world: World) -> None:
    recorder.record(Node(metadata=ObjectMeta(name="n")), "Normal", "Up", "it is up", action="Test")
    await world.settle()
    assert sent(world)[0].namespace == "default"


async def test_the_same_again_is_a_series(recorder: EventRecorder, world: World) -> None:
    for _ in range(5):
        say(recorder, "same")
        await world.advance(1)
    (event,) = sent(world)
    assert event.series is not None
    assert event.series.count == 2  # the first repetition is written at once, the others later
    assert world.count("PATCH") == 1
    await world.advance(90)
    (event,) = sent(world)
    assert event.series is not None
    assert event.series.count == 5
    assert world.count("PATCH") == 2


async def test_a_series_ends_after_six_quiet_minutes(recorder: EventRecorder, world: World) -> None:
    say(recorder, "same")
    await world.advance(400)
    say(recorder, "same")
    await world.settle()
    assert [event.series for event in sent(world)] == [None, None]


async def test_a_series_whose_event_expired_begins_again(recorder: EventRecorder, world: World) -> None:
    say(recorder, "same")
    await world.settle()
    world.delete(Event, sent(world)[0].name)
    say(recorder, "same")
    await world.settle()
    (event,) = sent(world)
    assert event.series is not None
    assert event.series.count == 2


@pytest.mark.conformance(55)
async def test_twelve_different_messages_are_combined_from_the_tenth_on(recorder: EventRecorder, world: World) -> None:
    for number in range(12):
        say(recorder, f"message {number}")
        await world.settle()
    notes = [event.note for event in sent(world)]
    assert notes[:9] == [f"message {number}" for number in range(9)]
    (combined,) = notes[9:]
    assert combined.startswith("(combined from similar events): message ")
    last = sent(world)[-1]
    assert last.series is not None
    await world.advance(90)
    last = sent(world)[-1]
    assert last.series is not None
    assert (last.series.count, last.note) == (3, "(combined from similar events): message 11")


async def test_the_window_of_combining_passes(recorder: EventRecorder, world: World) -> None:
    for number in range(9):
        say(recorder, f"message {number}")
    await world.advance(601)
    say(recorder, "message 10")
    await world.settle()
    assert sent(world)[-1].note == "message 10"


async def test_an_object_has_a_bucket_of_new_events(recorder: EventRecorder, world: World, dropped: list[str]) -> None:
    for number in range(BUCKET_SIZE + 5):
        say(recorder, "x", reason=f"Reason{number}")
    await world.settle()
    assert len(sent(world)) == BUCKET_SIZE
    assert dropped == ["spam"] * 5
    say(recorder, "x", reason="Reason0")  # counting costs nothing
    other = SUBJECT.with_metadata(name="other", uid="u-2")
    say(recorder, "x", subject=other)
    await world.settle()
    assert len(sent(world)) == BUCKET_SIZE + 1
    await world.advance(300)
    say(recorder, "x", reason="Later")
    await world.settle()
    assert len(sent(world)) == BUCKET_SIZE + 2


@pytest.mark.conformance(56)
async def test_a_storm_never_blocks_and_never_grows(world: World, dropped: list[str]) -> None:
    recorder = make(world, dropped)  # not running, so that nothing is sent
    started = monotonic()
    for number in range(QUEUE_LIMIT + 500):
        say(recorder, "x", subject=SUBJECT.with_metadata(name=f"s{number}", uid=f"u{number}"))
    assert monotonic() == started
    assert recorder.busy() == [f"{QUEUE_LIMIT} events to send"]
    assert dropped == ["queue-full"] * 500


async def test_an_unreachable_server_is_tried_for_a_while(
    recorder: EventRecorder, world: World, dropped: list[str]
) -> None:
    fault = world.fail_next("POST", Event, drop_connection=True, times=None)
    say(recorder, "patience")
    await asyncio.sleep(60)
    world.server.faults.remove(fault)
    await world.advance(10)
    assert [event.note for event in sent(world)] == ["patience"]
    assert dropped == []


async def test_a_server_that_stays_away_costs_the_event(
    recorder: EventRecorder, world: World, dropped: list[str]
) -> None:
    world.fail_next("POST", Event, hang=True, times=None)
    say(recorder, "lost")
    await asyncio.sleep(600)
    assert dropped == ["unreachable"]


async def test_a_refusal_is_final(recorder: EventRecorder, world: World, dropped: list[str]) -> None:
    world.fail_next("POST", Event, status=403, times=None)
    say(recorder, "refused")
    await world.settle()
    assert dropped == ["refused"]
    assert world.count("POST", Event) == 1


async def test_long_notes_are_cut_at_a_character(recorder: EventRecorder, world: World) -> None:
    say(recorder, "ä" * 1000)
    await world.settle()
    note = sent(world)[0].note
    assert len(note.encode()) <= 1024
    assert note.endswith("ä…")


async def test_stopping_sends_what_is_left(world: World, dropped: list[str]) -> None:
    recorder = make(world, dropped)
    async with TaskScope("test") as scope:
        scope.spawn(recorder.run(), name="events")
        await asyncio.sleep(0)
        say(recorder, "last words")
    assert [event.note for event in sent(world)] == ["last words"]


async def test_an_event_under_way_when_stopped_is_sent_once_more(world: World, dropped: list[str]) -> None:
    world.fail_next("POST", Event, hang=True)
    recorder = make(world, dropped)
    async with TaskScope("test") as scope:
        scope.spawn(recorder.run(), name="events")
        await asyncio.sleep(0)
        say(recorder, "last words")
        await asyncio.sleep(1)
        assert sent(world) == []
    assert [event.note for event in sent(world)] == ["last words"]
    assert dropped == []
