"""Explains conflicts of server-side apply: which field belongs to which manager.

    async def take_over(request: Request[Memcached], config: ConfigMap) -> None:
        _, taken = await apply_and_report(request.api.client, config)
        for conflict in taken:
            request.log.warning("took over a field", field=conflict.field, manager=conflict.manager)

An apply that is not forced fails with `Conflict`, whose fields `field_conflicts` returns. A forced apply takes them
over and does not report them; `apply_and_report` does.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from kaito.runtime.client.client import Client
from kaito.runtime.errors import Conflict
from kaito.runtime.meta import Resource

R = TypeVar("R", bound=Resource)

_REASON = "FieldManagerConflict"
_MANAGER = re.compile(
    r'conflict with "(?P<manager>(?:[^"\\]|\\.)*)"'
    r'(?: with subresource "(?P<subresource>[^"]*)")?'
    r"(?: using (?P<version>\S+))?"
    r"(?: at (?P<time>\S+))?"
)


@dataclass(frozen=True, slots=True)
class FieldConflict:
    """A field that another manager owns with another value."""

    field: str
    """Path of the field, such as `.spec.template.spec.containers[name="web"].image`."""
    manager: str
    """Name of its manager, such as `kubectl-edit`."""
    applied: bool
    """Whether the manager has applied the field; False: it has written it with an update or a patch."""
    subresource: str = ""
    """The subresource that the manager wrote, such as `scale`."""
    at: datetime | None = None
    """Time of the write, if the server knows it."""

    def __str__(self) -> str:
        written = "applied by" if self.applied else "written by"
        through = f" through {self.subresource}" if self.subresource else ""
        return f"{self.field} {written} {self.manager}{through}"


def field_conflicts(error: Conflict) -> Sequence[FieldConflict]:
    """Returns the fields of a conflict of server-side apply; empty for other conflicts."""
    found: list[FieldConflict] = []
    for cause in error.causes:
        match = _MANAGER.match(str(cause.get("message", "")))
        if cause.get("reason") != _REASON or match is None:
            continue
        found.append(
            FieldConflict(
                field=str(cause.get("field", "")),
                manager=re.sub(r"\\(.)", r"\1", match["manager"]),
                applied=match["version"] is None,
                subresource=match["subresource"] or "",
                at=_time(match["time"]),
            )
        )
    return found


async def apply_conflicts(
    client: Client, obj: Resource, *, field_manager: str | None = None
) -> Sequence[FieldConflict]:
    """Returns the fields that a forced apply of `obj` would take over; nothing is stored.

    Raises:
        ApiError: The server rejects the object.
    """
    try:
        await client.apply(obj, force=False, field_manager=field_manager, dry_run=True)
    except Conflict as error:
        if conflicts := field_conflicts(error):
            return conflicts
        raise
    return ()


async def apply_and_report(
    client: Client, obj: R, *, field_manager: str | None = None
) -> tuple[R, Sequence[FieldConflict]]:
    """Applies an object and takes over its fields; returns it, and the fields that belonged to others.

    Without a conflict, it is one request.

    Raises:
        ApiError: The server rejects the object.
    """
    try:
        return await client.apply(obj, force=False, field_manager=field_manager), ()
    except Conflict as error:
        conflicts = field_conflicts(error)
        if not conflicts:
            raise
    return await client.apply(obj, force=True, field_manager=field_manager), conflicts


def _time(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
