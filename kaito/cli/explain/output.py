"""Formats diagnoses: text for people, and plain data for `-o json` and `-o yaml`."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any, Final

from kaito.diagnosis import Cause, Diagnosis, EventNote, Link, NextStep
from kaito.planning.style import Style, duration
from kaito.runtime.meta import format_time

INDENT: Final = 9
"""Characters before the text of a section."""

MAX_LINKS: Final = 6
"""Objects of one kind that are printed; the others are counted."""

SAME_CHARACTERS: Final = 60
"""An Event whose note has the same beginning as the cause is not printed in full."""

_MARKS: Final[Mapping[str, tuple[str, str]]] = {
    "ok": ("+", "green"),
    "waiting": ("~", "yellow"),
    "failed": ("!", "red"),
    "absent": ("-", "dim"),
    "unknown": ("?", "dim"),
}
_COLORS: Final[Mapping[str, str]] = {
    "ready": "green",
    "succeeded": "green",
    "stopped": "green",
    "progressing": "yellow",
    "deleting": "yellow",
    "failing": "red",
}


def render(diagnosis: Diagnosis, style: Style, *, now: datetime, width: int = 100) -> str:
    """Returns the text of a diagnosis."""
    return "\n".join(_lines(diagnosis, style, now, width)) + "\n"


def _lines(diagnosis: Diagnosis, style: Style, now: datetime, width: int) -> Iterator[str]:
    head = f"Workspace {diagnosis.namespace}/{diagnosis.name}: {diagnosis.summary}"
    created = f", created {_ago(diagnosis.created, now)}" if diagnosis.created is not None else ""
    yield f"{style.paint(head, _COLORS[diagnosis.state])}{created}"
    yield ""
    if diagnosis.cause is not None:
        yield from _cause(diagnosis.cause, style, now, width)
        yield from _next(diagnosis.next, now, width)
    yield from _section("do" if diagnosis.cause is not None else "use", diagnosis.advice, width)
    yield ""
    yield from _chain(diagnosis, style, now, width)
    for note in diagnosis.notes:
        yield from wrapped(note, "note", width)


def _cause(cause: Cause, style: Style, now: datetime, width: int) -> Iterator[str]:
    since = f", since {_clock(cause.since, now)} ({_span(cause.since, now)})" if cause.since is not None else ""
    yield f"{'cause':<{INDENT}}{style.paint(cause.reason, 'red')} on {cause.kind} {cause.name}{since}"
    yield from wrapped(cause.message, "", width)


def _next(steps: Sequence[NextStep], now: datetime, width: int) -> Iterator[str]:
    for number, step in enumerate(steps):
        when = f"{_clock(step.at, now)} ({_in(step.at, now)}): " if step.at is not None else ""
        yield from wrapped(f"{when}{step.what}", "next" if number == 0 else "", width)


def _section(name: str, lines: Sequence[str], width: int) -> Iterator[str]:
    for number, line in enumerate(lines):
        heading = name if number == 0 else ""
        if line.startswith("$ "):
            yield f"{heading:<{INDENT}}{line}"  # a command is not wrapped, so that it can be copied
        else:
            yield from wrapped(line, heading, width)


def _chain(diagnosis: Diagnosis, style: Style, now: datetime, width: int) -> Iterator[str]:
    cause = diagnosis.cause.message if diagnosis.cause is not None else ""
    shown = [link for kind in groupby(diagnosis.chain, key=lambda link: link.kind) for link in _limited([*kind[1]])]
    kinds = max((len(link.kind) for link in shown), default=0)
    names = min(max((len(link.name) for link in shown), default=0), 24)
    for number, link in enumerate(shown):
        mark, color = _MARKS[link.state]
        since = f" ({_span(link.since, now)})" if link.since is not None else ""
        heading = "chain" if number == 0 else ""
        text = f"{link.kind:<{kinds}}  {link.name:<{names}}  {link.summary}{since}"
        room = max(width - INDENT - 2, 40)
        first, *rest = textwrap.wrap(text, room, break_long_words=False, drop_whitespace=False) or [text]
        yield f"{heading:<{INDENT}}{style.paint(mark, color)} {first.rstrip()}"
        yield from (f"{'':<{INDENT}}    {line.strip()}" for line in rest)
        if link.event is not None and link.state in {"failed", "waiting", "absent"}:
            yield from _event(link.event, cause, now, width)


def _limited(links: Sequence[Link]) -> list[Link]:
    """Returns the links that are printed: those with a problem first if there are many."""
    if len(links) <= MAX_LINKS:
        return list(links)
    worst = [link for link in links if link.state != "ok"]
    kept = (worst or list(links))[:MAX_LINKS]
    others = len(links) - len(kept)
    hidden = sum(link.state != "ok" for link in links) - sum(link.state != "ok" for link in kept)
    summary = f"{others} more, {hidden} of them not ready" if hidden else f"{others} more, all ready"
    return [*kept, Link(kind=links[0].kind, name="", state="ok" if not hidden else "waiting", summary=summary)]


def _event(event: EventNote, cause: str, now: datetime, width: int) -> Iterator[str]:
    count = f" x{event.count}" if event.count > 1 else ""
    is_cause = bool(event.note) and event.note[:SAME_CHARACTERS] in cause
    note = "see the cause" if is_cause else event.note
    text = f"{_span(event.at, now)} ago{count}: {event.reason}: {note}"
    indent = " " * (INDENT + 4)
    lines = textwrap.wrap(text, max(width - len(indent), 40), break_long_words=False, break_on_hyphens=False)
    yield from (f"{indent}{line}" for line in lines[:3])


def wrapped(text: str, heading: str, width: int) -> Iterator[str]:
    """Yields a text in lines of this width, with a heading before the first one."""
    lines = textwrap.wrap(text, max(width - INDENT, 40), break_long_words=False, break_on_hyphens=False) or [""]
    yield f"{heading:<{INDENT}}{lines[0]}"
    yield from (f"{'':<{INDENT}}{line}" for line in lines[1:])


def _clock(time: datetime, now: datetime) -> str:
    """Formats a time in UTC; with the day if it is not today's."""
    return f"{time:%H:%M:%SZ}" if time.date() == now.date() else f"{time:%Y-%m-%dT%H:%M:%SZ}"


def _span(since: datetime, now: datetime) -> str:
    return duration((now - since).total_seconds())


def _ago(time: datetime, now: datetime) -> str:
    return f"{_span(time, now)} ago"


def _in(time: datetime, now: datetime) -> str:
    seconds = (time - now).total_seconds()
    return f"in {duration(seconds)}" if seconds >= 0 else f"due {duration(-seconds)} ago"


def as_data(diagnosis: Diagnosis) -> dict[str, Any]:
    """Returns a diagnosis as JSON values. What is unknown is absent."""
    data: dict[str, Any] = {
        "workspace": {"name": diagnosis.name, "namespace": diagnosis.namespace, "task": diagnosis.task},
        "state": diagnosis.state,
        "serving": diagnosis.serving,
        "summary": diagnosis.summary,
        "created": _time(diagnosis.created),
        "cause": _cause_data(diagnosis.cause) if diagnosis.cause is not None else None,
        "next": [_known({"what": step.what, "at": _time(step.at)}) for step in diagnosis.next],
        "advice": list(diagnosis.advice),
        "chain": [_link_data(link) for link in diagnosis.chain],
        "notes": list(diagnosis.notes),
    }
    return _known(data)


def _cause_data(cause: Cause) -> dict[str, Any]:
    return _known(
        {
            "kind": cause.kind,
            "name": cause.name,
            "reason": cause.reason,
            "message": cause.message,
            "since": _time(cause.since),
        }
    )


def _link_data(link: Link) -> dict[str, Any]:
    event = link.event
    return _known(
        {
            "kind": link.kind,
            "name": link.name or None,
            "state": link.state,
            "summary": link.summary,
            "since": _time(link.since),
            "created": _time(link.created),
            "event": {
                "type": "Warning" if event.warning else "Normal",
                "reason": event.reason,
                "note": event.note,
                "at": _time(event.at),
                "count": event.count,
            }
            if event is not None
            else None,
        }
    )


def _known(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if value is not None}


def _time(time: datetime | None) -> str | None:
    return format_time(time) if time is not None else None
