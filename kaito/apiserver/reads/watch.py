"""Serves watch streams: the changes of selected objects after a resource version.

`open_watch` validates the request and subscribes at once, so nothing that happens afterwards is missed; the returned
`WatchStream` is the body of the response. The protocol is that of the Kubernetes API concepts page: bookmarks about
once a minute, `sendInitialEvents` with its end bookmark, an ERROR event 410 when history no longer reaches back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from kaito.apiserver import errors
from kaito.apiserver.printers.presentation import Presentation
from kaito.apiserver.registry.resources import has_view
from kaito.apiserver.registry.routes import Target
from kaito.apiserver.registry.selectors import Selection, selection
from kaito.apiserver.registry.server_state import ServerState
from kaito.apiserver.registry.store import Change, Stored, Watcher, watch_line
from kaito.apiserver.wire import HttpRequest, Object, encode

BOOKMARK_INTERVAL_SECONDS = 60.0
"""The real server sends a bookmark about once a minute (`cacher.defaultBookmarkFrequency`)."""
MIN_TIMEOUT_SECONDS = 1800
"""Without `timeoutSeconds` a watch lasts between this and twice this (`--min-request-timeout`)."""
INITIAL_EVENTS_END = "k8s.io/initial-events-end"
Prepare: TypeAlias = Callable[[Iterable[Stored | None]], Awaitable[None]]
"""Computes the views of a conversion webhook; an object that cannot be converted ends the stream."""


@dataclass(slots=True)
class WatchOptions:
    """The watch parameters of a request."""

    rv: int | None
    """Start after this version; None to start with the current state."""
    bookmarks: bool
    initial_events: bool | None
    timeout: float


def watch_options(state: ServerState, request: HttpRequest) -> WatchOptions:
    """Reads and checks the watch parameters."""
    text = request.param("resourceVersion")
    rv = parse_rv(text)
    send = request.param("sendInitialEvents")
    initial = request.flag("sendInitialEvents") if send else None
    match = request.param("resourceVersionMatch")
    if match and initial is None:
        raise _invalid_options(
            errors.forbidden_field(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            )
        )
    if initial is not None and match != "NotOlderThan":
        raise _invalid_options(
            errors.forbidden_field(
                "resourceVersionMatch",
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            )
            if not match
            else errors.unsupported("resourceVersionMatch", match, ["NotOlderThan"])
        )
    seconds = request.param("timeoutSeconds")
    timeout = float(seconds) if seconds.isdigit() and int(seconds) else MIN_TIMEOUT_SECONDS * (1 + state.rng.random())
    return WatchOptions(rv or None, request.flag("allowWatchBookmarks"), initial, timeout)


def _invalid_options(error: errors.FieldError) -> errors.StatusError:
    return errors.invalid("meta.k8s.io", "ListOptions", "", [error])


def parse_rv(text: str, prefix: str = "") -> int | None:
    """Returns the number of a resource version parameter; None when it is empty."""
    if not text:
        return None
    if not text.isdigit():
        raise errors.bad_request(
            f'{prefix}resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
        )
    return int(text)


class WatchStream(AsyncIterator[bytes]):
    """The body of one watch. Ends at its timeout, when cut, or when the type disappears."""

    def __init__(
        self,
        state: ServerState,
        target: Target,
        chosen: Selection,
        show: Presentation,
        options: WatchOptions,
        prepare: Prepare | None = None,
    ) -> None:
        self.target = target
        self.watcher = Watcher()
        self.sent = 0
        """Events sent so far, bookmarks included."""
        self.garble: Callable[[bytes], bytes] | None = None
        """Fault injection: changes the next bytes on their way out."""
        self._state = state
        self._chosen = chosen
        self._show = show
        self._options = options
        self._prepare = prepare
        self._queue: list[bytes] = []
        loop = asyncio.get_running_loop()
        self._ends = loop.time() + options.timeout
        self._bookmark_at = loop.time() + BOOKMARK_INTERVAL_SECONDS
        self._clock = loop.time
        self._closed = False
        self._watch_cache = state.store.watch_cache(target.resource.storage)
        self._start()
        if not self._closed:
            self._watch_cache.watchers[self.watcher] = None

    def _start(self) -> None:
        options, watch_cache = self._options, self._watch_cache
        newest = self._state.store.rv
        if options.initial_events and options.rv is not None and options.rv > newest:
            self._refuse(errors.too_large_resource_version(options.rv, newest))
        elif options.initial_events or (options.rv is None and options.initial_events is None):
            for key in sorted(watch_cache.objects):
                stored = watch_cache.objects[key]
                if self._chosen.matches(stored.data) and self._can_show(stored):
                    self._queue.append(self._line("ADDED", stored))
            if options.initial_events and options.bookmarks and not self._closed:
                # A stream that ends early must not mark the initial events as complete.
                self._queue.append(self._bookmark(initial=True))
        elif options.rv is not None:
            if options.rv < watch_cache.floor:
                self._refuse(errors.expired(f"too old resource version: {options.rv} ({watch_cache.floor})"))
                return
            for change in watch_cache.since(options.rv):
                self._enqueue(change)

    def _refuse(self, error: errors.StatusError) -> None:
        self._queue.append(watch_line("ERROR", encode(error.status())))
        self._closed = True

    def _reached(self) -> int:
        """Returns the version up to which everything was sent."""
        held = self.watcher.held
        return held[0].rv - 1 if held else self._state.store.rv

    def __aiter__(self) -> WatchStream:
        return self

    async def __anext__(self) -> bytes:
        while True:
            await self._convert()
            self._collect()
            if self._queue:
                return self._flush()
            if self._closed or self.watcher.cut or self._clock() >= self._ends:
                await self.aclose()
                raise StopAsyncIteration
            await self._wait()

    async def aclose(self) -> None:
        """Ends the stream and its subscription."""
        self._closed = True
        self._watch_cache.watchers.pop(self.watcher, None)

    def _flush(self) -> bytes:
        self.sent += len(self._queue)
        chunk = b"".join(self._queue)
        self._queue.clear()
        if self.garble is not None:
            chunk, self.garble = self.garble(chunk), None
        return chunk

    async def _convert(self) -> None:
        """Prepares what was pushed so far."""
        pending, seen = self.watcher.pending, 0
        while self._prepare is not None and seen < len(pending):
            seen = len(pending)  # more may come while the webhook answers
            await self._prepare([state for change in pending for state in (change.stored, change.previous)])

    def _collect(self) -> None:
        pending = self.watcher.pending
        while pending:
            self._enqueue(pending.popleft())
        self.watcher.wake.clear()
        if self._options.bookmarks and not self._closed and self._clock() >= self._bookmark_at:
            self._bookmark_at = self._clock() + BOOKMARK_INTERVAL_SECONDS
            if self._reached() >= (self._options.rv or 0):  # The real server does not go back either.
                self._queue.append(self._bookmark(initial=False))

    async def _wait(self) -> None:
        if self.watcher.cut:
            return
        until = min(self._ends, self._bookmark_at) if self._options.bookmarks else self._ends
        try:
            async with asyncio.timeout_at(until):
                await self.watcher.wake.wait()
        except TimeoutError:
            return

    def _enqueue(self, change: Change) -> None:
        if self._options.rv is not None and change.rv <= self._options.rv:
            return  # A server that was restored from an older state is silent until it reaches the client's version.
        event = self._event(change)
        if event is None:
            return
        shown = change.stored if event == change.type or event == "ADDED" else departed(change)
        if not self._can_show(shown):
            return
        if self._show.plain:
            key = f"{event}:{self.target.resource.api_version}"
            line = change.lines.get(key)
            if line is None:
                line = change.lines[key] = self._line(event, shown)
        else:
            line = self._line(event, shown)
        self._queue.append(line)

    def _can_show(self, stored: Stored) -> bool:
        """Returns whether an object can be sent; one that a webhook cannot convert ends the stream, as in
        kube-apiserver."""
        if self._prepare is not None and not has_view(stored, self.target.resource):
            self._closed = True
        return not self._closed

    def _event(self, change: Change) -> str | None:
        """Returns the type of the event for this selection: ADDED when the object enters it, DELETED when it leaves."""
        if self._chosen.everything:
            return change.type
        before = change.previous is not None and self._chosen.matches(change.previous.data)
        after = change.type != "DELETED" and self._chosen.matches(change.stored.data)
        if change.type == "DELETED":
            return "DELETED" if before else None
        if before and after:
            return "MODIFIED"
        if after:
            return "ADDED"
        return "DELETED" if before else None

    def _line(self, event: str, stored: Stored) -> bytes:
        return watch_line(event, self._show.event(self.target.resource, stored))

    def _bookmark(self, *, initial: bool) -> bytes:
        # A bookmark guarantees that everything up to its version was sent.
        metadata: Object = {"resourceVersion": str(self._reached())}
        if initial:
            metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
        return watch_line("BOOKMARK", self._show.bookmark(self.target.resource, metadata))


def departed(change: Change) -> Stored:
    """Returns the object that a change removes from a selection: its last state inside, at the change's resource
    version."""
    data = change.stored.data if change.previous is None else change.previous.data
    last = Stored(change.stored.key, change.rv, _at(data, change.rv))
    views = (change.stored if change.previous is None else change.previous).views
    last.views = {version: _at(shown, change.rv) for version, shown in views.items()}
    return last


def _at(data: Object, rv: int) -> Object:
    return {**data, "metadata": {**data["metadata"], "resourceVersion": str(rv)}}


def open_watch(
    state: ServerState, target: Target, request: HttpRequest, show: Presentation, prepare: Prepare | None = None
) -> WatchStream:
    """Returns the stream for a watch request."""
    options = watch_options(state, request)
    fields = request.param("fieldSelector")
    if target.name:
        fields = ",".join(filter(None, (fields, f"metadata.name={target.name}")))
    chosen = selection(target.resource, target.namespace, request.param("labelSelector"), fields)
    return WatchStream(state, target, chosen, show, options, prepare)
