"""The buffer of one handler: every change while it is short, whole steps when it is long, never out of order."""

import random

from kaito.runtime.cache.buffer import SQUASH_ABOVE, ChangeBuffer
from kaito.runtime.cache.entry import Entry, make_entry
from kaito.runtime.cache.event import Change, EventType
from kaito.runtime.meta import ObjectKey


def entry(key: ObjectKey, version: int) -> Entry:
    metadata = f'{{"name":"{key.name}","namespace":"{key.namespace}","resourceVersion":"{version}"}}'
    return make_entry(f'{{"metadata":{metadata}}}'.encode(), {})


class Object:
    """Makes the changes of one object, in their only possible order."""

    def __init__(self, name: str) -> None:
        self.key = ObjectKey("ns", name)
        self.current: Entry | None = None
        self.version = 0

    def change(self, rng: random.Random) -> Change:
        self.version += 1
        old, new = self.current, entry(self.key, self.version)
        if old is None:
            self.current = new
            return Change(EventType.CREATE, self.key, None, new, 0.0)
        if rng.random() < 0.1:
            self.current = None
            return Change(EventType.DELETE, self.key, old, None, 0.0)
        self.current = new
        return Change(EventType.UPDATE, self.key, old, new, 0.0)


def test_a_short_buffer_keeps_every_change() -> None:
    rng = random.Random(1)
    buffer = ChangeBuffer()
    thing = Object("a")
    changes = [thing.change(rng) for _ in range(SQUASH_ABOVE)]
    for change in changes:
        buffer.put(change)
    buffer.mark()
    taken = [buffer.take() for _ in range(len(buffer))]
    assert taken.pop() is None
    assert [waiting.change for waiting in taken if waiting is not None] == changes


def test_whatever_the_rhythm_each_objects_changes_fit_together_and_end_at_the_newest() -> None:
    for seed in range(20):
        rng = random.Random(seed)
        buffer = ChangeBuffer()
        things = [Object(f"o{number}") for number in range(30)]
        seen: dict[ObjectKey, Entry | None] = {}

        def take(count: int, buffer: ChangeBuffer = buffer, seen: dict[ObjectKey, Entry | None] = seen) -> None:
            for _ in range(min(count, len(buffer))):
                waiting = buffer.take()
                assert waiting is not None
                change = waiting.change
                assert change.old is seen.get(change.key)
                seen[change.key] = change.new

        for _ in range(40):
            for _ in range(rng.randrange(300)):
                buffer.put(rng.choice(things).change(rng))
            take(rng.randrange(200))
        # Creations and deletions are never merged; there are about 0.2 of them per change.
        assert len(buffer) < SQUASH_ABOVE + 1500
        take(len(buffer))
        assert {thing.key: thing.current for thing in things} == seen
