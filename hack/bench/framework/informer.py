"""Measures an informer: the first fill, a stream of changes, and how long it blocks the event loop.

    python -m hack.bench informer [--objects 10000]

The server's bytes are prepared in memory and arrive in chunks of 64 KiB, so that only the informer is measured:
splitting, decoding, storing, calling one handler behind a `changed("generation")` predicate. CPU time; every row in a
separate process.
"""

import argparse
import asyncio
import gc
import json
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec

from hack.bench.framework.store import pod
from hack.bench.report import Column, Report
from kaito.runtime.cache import Cache, Cached
from kaito.runtime.client import Reply
from kaito.runtime.handler import enqueue_self
from kaito.runtime.kinds import Pod
from kaito.runtime.meta import ObjectKey
from kaito.runtime.predicate import changed
from kaito.runtime.source import KindSource
from kaito.runtime.tasks import TaskScope
from kaito.runtime.workqueue import Cause

CHUNK_BYTES = 64 * 1024
CHANGES = 30_000
END_BOOKMARK = (
    b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"2000000",'
    b'"annotations":{"k8s.io/initial-events-end":"true"}}}}\n'
)


def metadata_of(text: bytes) -> bytes:
    """The object as PartialObjectMetadata."""
    return msgspec.json.encode({"metadata": msgspec.json.decode(text)["metadata"]})


def changed_pod(number: int, version: int) -> bytes:
    """A status change of a pod: a newer version, the same generation."""
    old = f'"resourceVersion":"{1_000_000 + number}"'.encode()
    return pod(number).replace(old, f'"resourceVersion":"{3_000_000 + version}"'.encode())


@dataclass
class Recorded:
    """A server whose responses are prepared."""

    initial: bytes
    """The whole list, or the lines of a stream with initial events."""
    changes: bytes
    streaming: bool
    go: asyncio.Event
    status: int = 200
    host: str = "recorded"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    async def request(self, *_: object, **__: object) -> Reply:
        """The whole list in one page, as a watch cache sends it."""
        return Reply(200, {}, self.initial)

    @asynccontextmanager
    async def stream(self, *_: object, **__: object) -> AsyncGenerator["Recorded"]:
        """The initial events, if requested, then the changes."""
        yield self

    async def chunks(self) -> AsyncGenerator[bytes]:
        if self.streaming:
            for chunk in _chunked(self.initial):
                yield chunk
        await self.go.wait()
        for chunk in _chunked(self.changes):
            yield chunk
        await asyncio.Event().wait()

    async def read(self) -> bytes:
        return b""

    async def close(self) -> None:
        """Nothing to close."""


def _chunked(text: bytes) -> Iterator[bytes]:
    return (text[start : start + CHUNK_BYTES] for start in range(0, len(text), CHUNK_BYTES))


class Sink:
    """A queue that counts."""

    def __init__(self) -> None:
        self.added = 0

    def add(
        self,
        key: ObjectKey,  # noqa: ARG002 -- the protocol's
        *,
        priority: int = 0,  # noqa: ARG002 -- the protocol's
        after: float = 0.0,  # noqa: ARG002 -- the protocol's
        cause: Cause | None = None,  # noqa: ARG002 -- the protocol's
    ) -> None:
        """One more key."""
        self.added += 1


class Stalls:
    """The longest block of the event loop, in CPU seconds, so that other work on the machine does not count."""

    longest = 0.0

    async def watch(self) -> None:
        """Yields, and measures how long it took."""
        last = time.process_time()
        while True:
            await asyncio.sleep(0)
            now = time.process_time()
            self.longest = max(self.longest, now - last)
            last = now


async def measure(objects: int, *, streaming: bool, metadata_only: bool) -> dict[str, float]:
    """Runs the informer over the prepared responses."""
    texts = [pod(number) for number in range(objects)]
    changes = [changed_pod(number % objects, number) for number in range(CHANGES)]
    if metadata_only:
        texts = [metadata_of(text) for text in texts]
        changes = [metadata_of(text) for text in changes]
    lines = b"".join(b'{"type":"MODIFIED","object":' + text + b"}\n" for text in changes)
    if streaming:
        initial = b"".join(b'{"type":"ADDED","object":' + text + b"}\n" for text in texts) + END_BOOKMARK
    else:
        initial = b'{"metadata":{"resourceVersion":"2000000"},"items":[' + b",".join(texts) + b"]}"
    del texts, changes
    server = Recorded(initial, lines, streaming, asyncio.Event())
    cache = Cache(server, [Cached(Pod, only="metadata" if metadata_only else None)], streaming=streaming)
    queue = Sink()
    stalls = Stalls()
    gc.collect()
    async with TaskScope("bench") as scope:
        source = KindSource(Pod, enqueue_self, when=changed("generation"))
        started = time.process_time()
        scope.spawn(cache.run(), name="cache")
        handled = source.start(cache, queue, scope)
        scope.spawn(stalls.watch(), name="stalls")
        await handled.wait_synced()
        filling = time.process_time() - started
        fill_stall, stalls.longest = stalls.longest, 0.0
        started = time.process_time()
        server.go.set()
        while cache.stats()[0].events["MODIFIED"] < CHANGES or not handled.idle:  # noqa: ASYNC110 -- turns are counted
            await asyncio.sleep(0)
        following = time.process_time() - started
        if queue.added != objects:
            raise RuntimeError(f"{queue.added} keys for {objects} objects: the predicate let changes through")
    return {
        "fill_s": round(filling, 2),
        "fill_us_per_object": round(filling / objects * 1e6, 1),
        "fill_longest_stall_ms": round(fill_stall * 1e3, 1),
        "changes_per_cpu_s": round(CHANGES / following),
        "follow_longest_stall_ms": round(stalls.longest * 1e3, 1),
    }


ROWS = {
    "whole objects, streamed (WatchList)": ("--streaming",),
    "whole objects, LIST answered in one page": (),
    "metadata only, streamed": ("--streaming", "--metadata"),
}

COLUMNS = (
    Column("fill_s", "fill", "{:.2f} s"),
    Column("fill_us_per_object", "fill, per object", "{:.0f} µs"),
    Column("fill_longest_stall_ms", "longest time the loop did not turn", "{:.1f} ms"),
    Column("changes_per_cpu_s", "changes per CPU second", "{:,.0f}"),
    Column("follow_longest_stall_ms", "longest, while following", "{:.1f} ms"),
)


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m hack.bench informer", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=10_000)
    parser.add_argument("--streaming", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--metadata", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def benchmark(arguments: Sequence[str]) -> list[Report]:
    """Measures each row in a separate process."""
    options = _parsed(arguments)
    rows: dict[str, dict[str, float]] = {}
    for name, flags in ROWS.items():
        module = [sys.executable, "-m", "hack.bench.framework.informer"]
        command = [*module, "--objects", str(options.objects), *flags]
        rows[name] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return [
        Report(
            name="informer",
            about=f"an informer filled with {options.objects:,} pods, then {CHANGES:,} status changes; CPU time",
            settings={"objects": options.objects, "changes": CHANGES},
            columns=COLUMNS,
            rows=rows,
        )
    ]


if __name__ == "__main__":
    alone = _parsed(None)
    print(json.dumps(asyncio.run(measure(alone.objects, streaming=alone.streaming, metadata_only=alone.metadata))))
