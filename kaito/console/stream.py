"""Server-sent events: all rows, then changes, and whether the API server answers.

A reader gets at most five messages a second. There is no buffer for slow readers: each message contains the newest
rows, and a reader that is too far behind gets a snapshot. A connection that takes no data for a minute is closed; the
browser opens a new one.
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol, final

from aiohttp import web

from kaito.console.board import Board
from kaito.console.security.refusal import Refusal
from kaito.console.views.json_values import Json, to_json
from kaito.runtime.clock import monotonic
from kaito.runtime.meta import ObjectKey

EVENT_STREAM_HEADERS: Final[Mapping[str, str]] = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx then does not buffer events
}

KEEP_ALIVE_SECONDS: Final = 15.0
SEND_SECONDS: Final = 60.0
"""Time in which a reader must take a message."""

RIGHTS_SECONDS: Final = 60.0
"""Time for which a stream goes on while the rights of the reader cannot be checked."""

INTERVAL_SECONDS: Final = 0.2
"""Least time between two messages to a reader."""


class Visibility(Protocol):
    """What a user may see; asked before each message."""

    async def namespaces(self) -> Callable[[str], bool]:
        """Returns a function that decides by namespace.

        Raises:
            Refusal: the API server cannot answer.
        """
        ...


class Problems(Protocol):
    """Whether the API server answers."""

    @property
    def problem(self) -> Json | None:
        """The problem; None while there is none."""
        ...


def everything(namespace: str) -> bool:
    """Returns True: the user sees all namespaces."""
    del namespace
    return True


@final
class EventStream:
    """The events of one reader.

    Args:
        board: the rows.
        problems: whether the API server answers.
        money: computes the costs of the visible namespaces.
        visibility: what the reader may see.
    """

    def __init__(
        self,
        board: Board,
        problems: Problems,
        money: Callable[[Callable[[str], bool]], Json],
        visibility: Visibility,
    ) -> None:
        self._board = board
        self._problems = problems
        self._money = money
        self._visibility = visibility
        self._revision = -1
        self._number = 0
        self._shown: set[ObjectKey] = set()
        self._last_money: Json | None = None
        self._problem: Json | None = None
        self._visible_before: Callable[[str], bool] = lambda _: False
        self._checked_at = -RIGHTS_SECONDS

    async def run(self, response: web.StreamResponse, limit: float = math.inf) -> None:
        """Sends events until the reader leaves, or for a number of seconds.

        Raises:
            Refusal: the rights of the reader cannot be checked.
            TimeoutError: the reader takes no data.
            ConnectionError: the reader has left.
        """
        began = sent_at = monotonic()
        while monotonic() - began < limit:
            messages = await self._messages()
            if not messages and monotonic() - sent_at >= KEEP_ALIVE_SECONDS:
                messages = b": keep-alive\n\n"
            if messages:
                async with asyncio.timeout(SEND_SECONDS):
                    await response.write(messages)
                sent_at = monotonic()
            await asyncio.sleep(INTERVAL_SECONDS)
            try:
                async with asyncio.timeout(1.0):
                    await self._board.wait(self._revision)
            except TimeoutError:
                continue  # problems and rights are looked at again

    async def _messages(self) -> bytes:
        sent = b""
        problem = self._problems.problem
        if problem != self._problem:
            sent += self._event("problem", to_json(problem)) if problem is not None else self._event("recovered", "{}")
            self._problem = problem
        visible = await self._visible()
        revision = self._board.revision
        changed = self._board.changes_since(revision if self._revision < 0 else self._revision)
        hidden = {key for key in self._shown if not visible(key.namespace)}
        if self._revision < 0 or changed is None:
            self._revision = revision
            return sent + self._snapshot(visible)
        self._revision = revision
        revealed = [key for key in self._board.entries if key not in self._shown and visible(key.namespace)]
        if changed or hidden or revealed:
            sent += self._change({*changed, *hidden, *revealed}, visible)
        return sent

    async def _visible(self) -> Callable[[str], bool]:
        """Returns what the reader may see; what it was last time while the API server does not answer, for a minute.

        Raises:
            Refusal: the rights could not be checked for a minute.
        """
        try:
            self._visible_before = await self._visibility.namespaces()
        except Refusal:
            if monotonic() - self._checked_at > RIGHTS_SECONDS:
                raise
            return self._visible_before
        self._checked_at = monotonic()
        return self._visible_before

    def _snapshot(self, visible: Callable[[str], bool]) -> bytes:
        entries = {key: entry for key, entry in self._board.entries.items() if visible(key.namespace)}
        self._shown = set(entries)
        self._last_money = self._money(visible)
        rows = ",".join(entry.text for entry in entries.values())
        return self._event("snapshot", f'{{"workspaces":[{rows}],"money":{to_json(self._last_money)}}}')

    def _change(self, keys: Iterable[ObjectKey], visible: Callable[[str], bool]) -> bytes:
        upserts: list[str] = []
        deletes: list[str] = []
        for key in keys:
            entry = self._board.entries.get(key)
            if entry is not None and visible(key.namespace):
                self._shown.add(key)
                upserts.append(entry.text)
            elif key in self._shown:
                self._shown.discard(key)
                deletes.append(str(key))
        money = self._money(visible)
        is_news = {**money, "history": None} != {**(self._last_money or {}), "history": None}
        self._last_money = money
        if not upserts and not deletes:
            return b""
        sent = to_json(money if is_news else None)
        text = f'{{"upserts":[{",".join(upserts)}],"deletes":{to_json(deletes)},"money":{sent}}}'
        return self._event("change", text)

    def _event(self, name: str, data: str) -> bytes:
        self._number += 1
        return f"id: {self._number}\nevent: {name}\ndata: {data}\n\n".encode()
