"""Reads node classes from the API server, of any kind, and evaluates whether Karpenter can launch nodes with them.

The kinds belong to other projects and need not be installed: they are read as plain JSON, by name, and never listed or
watched. Without the permission the result is unknown and prevents nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, final

from kaito.api import conditions
from kaito.api.json_values import json_list, json_object
from kaito.api.karpenter import NodeClassRef
from kaito.runtime.client import Client
from kaito.runtime.errors import ApiError, NotFound
from kaito.workspace.node_class import NodeClassKind

FRESH_SECONDS: Final = 5.0
"""Time for which a usable node class is not read again, so that many Workspaces at once cost one request."""

MAX_STORED: Final = 256
"""Number of node classes whose last state is stored."""


@final
@dataclass(frozen=True, slots=True)
class NodeClassState:
    """Whether a node class can be used for new claims."""

    problem: tuple[str, str] | None = None
    """Reason and message if a claim of it would be deleted or ignored."""
    unknown: str = ""
    """Why it is unknown whether the node class is Ready; empty if it is known."""


@final
class NodeClassReads:
    """Reads node classes, and stores their last state. A usable one is not read again for a few seconds."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[datetime, NodeClassState]] = {}

    async def state(
        self, client: Client, kind: NodeClassKind, reference: NodeClassRef, now: datetime, *, fresh: bool = False
    ) -> NodeClassState:
        """Returns the state of a node class.

        Args:
            client: reads it.
            kind: the kind of the reference.
            reference: the node class.
            now: the current time.
            fresh: whether to read it again although it was usable a moment ago.

        Raises:
            TransportError: the API server cannot be reached.
        """
        read_at, last = self._last.get(str(reference), (now, None))
        if not fresh and last and not last.problem and now < read_at + timedelta(seconds=FRESH_SECONDS):
            return last
        state = await _read(client, kind, reference)
        while len(self._last) >= MAX_STORED:
            del self._last[next(iter(self._last))]
        self._last[str(reference)] = (now, state)
        return state

    def last(self, reference: NodeClassRef) -> NodeClassState:
        """Returns the state when the node class was last read; an empty one if it was not."""
        return self._last[str(reference)][1] if str(reference) in self._last else NodeClassState()


async def _read(client: Client, kind: NodeClassKind, reference: NodeClassRef) -> NodeClassState:
    refused = ""
    if kind.version and kind.resource_name:
        try:
            return _evaluate(reference, await _get(client, kind, reference))
        except NotFound as error:
            if error.is_object:
                return _missing(reference)
        except ApiError as error:
            refused = error.message  # authorization comes before the 404 of a kind that is not installed
    try:
        served = await _discover(client, kind)
        if served is None:
            message = (
                f"the API server does not serve the kind {reference.kind} of the API group {reference.group}: install "
                f"the Karpenter provider that defines it, or name another node class"
            )
            return NodeClassState((conditions.NODE_CLASS_KIND_MISSING, message))
        if served == kind and refused:
            return _unknown(reference, refused)
        return _evaluate(reference, await _get(client, served, reference))
    except NotFound:
        return _missing(reference)
    except ApiError as error:
        return _unknown(reference, error.message)


async def _get(client: Client, kind: NodeClassKind, reference: NodeClassRef) -> dict[str, Any]:
    return await client.raw("GET", f"/apis/{kind.group}/{kind.version}/{kind.resource_name}/{reference.name}")


async def _discover(client: Client, kind: NodeClassKind) -> NodeClassKind | None:
    """Returns the kind with version and resource name, the preferred version first; None if it is not served."""
    try:
        group = await client.raw("GET", f"/apis/{kind.group}")
    except NotFound:
        return None
    preferred = json_object(group.get("preferredVersion")).get("version")
    versions = [json_object(entry).get("version") for entry in json_list(group.get("versions"))]
    for version in sorted(filter(None, versions), key=lambda each: each != preferred):
        resources = await client.raw("GET", f"/apis/{kind.group}/{version}")
        for entry in map(json_object, json_list(resources.get("resources"))):
            name = str(entry.get("name", ""))
            if entry.get("kind") == kind.kind and "/" not in name:
                return NodeClassKind(kind.group, kind.kind, str(version), name)
    return None


def _missing(reference: NodeClassRef) -> NodeClassState:
    message = f"node class {reference} does not exist: create it, or name another one"
    return NodeClassState((conditions.NODE_CLASS_NOT_FOUND, message))


def _unknown(reference: NodeClassRef, why: str) -> NodeClassState:
    return NodeClassState(unknown=f"it is unknown whether node class {reference} is Ready: {why}")


def _evaluate(reference: NodeClassRef, document: Mapping[str, Any]) -> NodeClassState:
    """Evaluates the condition Ready. A class without conditions is usable: not every provider sets them."""
    if json_object(document.get("metadata")).get("deletionTimestamp"):
        message = f"node class {reference} is being deleted: name another one"
        return NodeClassState((conditions.NODE_CLASS_NOT_READY, message))
    found = json_list(json_object(document.get("status")).get("conditions"))
    ready = next((c for c in map(json_object, found) if c.get("type") == "Ready"), None)
    if ready is None or ready.get("status") == "True":
        return NodeClassState()
    cause = ": ".join(str(ready[key]) for key in ("reason", "message") if ready.get(key)) or "no cause reported"
    if ready.get("status") == "False":
        message = f"node class {reference} is not Ready: {cause}"
        return NodeClassState((conditions.NODE_CLASS_NOT_READY, message))
    return _unknown(reference, cause)
