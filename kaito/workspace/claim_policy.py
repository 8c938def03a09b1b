"""Which claims to create and which to give up: a pure decision over what exists, what was tried, and the time.

Three things must never happen: two nodes bought for one place, a claim created in a loop against a quota that will not
move, and a broken node waited for in silence. The first is met by names (see `manifests.claim`), the second by a
growing pause kept on the Workspace, the third by giving up claims that do not launch or whose node stays NotReady.

A claim is lost when it was expected (the status of an earlier pass or the record lists it) and is now absent, being
deleted, or given up. The record lists the names of the claims whose loss it has counted, so that a loss counts once
even when a pass ends between two writes. The pause starts when the lost claims are gone: a provisioner with a
finalizer may need minutes for that.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self, cast, final

from kaito.api import Claim, labels
from kaito.runtime.kinds import Node
from kaito.workspace.settings import WorkspaceSettings

FIRST_PAUSE_SECONDS = 30.0
LONGEST_PAUSE_SECONDS = 900.0
DELETION_PATIENCE_SECONDS = 300.0
"""A deleting claim holds its place this long; then a replacement is made under the next name."""

STABLE_SECONDS = 600.0
"""Claims that were all Ready this long end a row of losses. Shorter success does not: a node that joins and is lost
again and again is replaced with growing pauses, too."""

MOST_FAILURES = 32
"""Highest count of losses kept. The pause has reached its maximum long before."""

CAUSE_LENGTH = 600
"""Longest cause of a loss kept in the record, in characters."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """What replacing claims has cost so far; an annotation of the Workspace, so that a restart knows it too."""

    serial: int = 0
    """Part of the next claim's name; never goes back."""
    failures: int = 0
    """Losses in a row since claims and nodes were last Ready for `STABLE_SECONDS`."""
    since: datetime | None = None
    """When the pause began; None with failures means that the lost claims are not gone yet."""
    lost: tuple[str, ...] = ()
    """Names of the claims whose loss is counted already."""
    issued: tuple[str, ...] = ()
    """Names of the replacements created since the last loss, recorded before they are created."""
    cause: str = ""
    """Why the last claim was lost; empty when unknown."""

    @classmethod
    def read(cls, annotations: Mapping[str, str]) -> Self:
        """The record on a Workspace; an empty one when there is none, or when it is unreadable."""
        try:
            record = json.loads(annotations.get(labels.PROVISION_ATTEMPTS, "{}"))
            since = record.get("since")
            return cls(
                serial=max(int(record.get("serial", 0)), 0),
                failures=min(max(int(record.get("failures", 0)), 0), MOST_FAILURES),
                since=datetime.fromisoformat(since).astimezone(UTC) if since else None,
                lost=_names(record.get("lost")),
                issued=_names(record.get("issued")),
                cause=str(record.get("cause", ""))[:CAUSE_LENGTH],
            )
        except (ValueError, TypeError, AttributeError, OverflowError):
            return cls()

    def write(self) -> str:
        """The annotation's value."""
        record: dict[str, Any] = {"serial": self.serial, "failures": self.failures}
        if self.since is not None:
            record["since"] = self.since.isoformat()
        rest = {"lost": self.lost, "issued": self.issued, "cause": self.cause}
        record |= {name: value for name, value in rest.items() if value}
        return json.dumps(record)

    @property
    def pause(self) -> timedelta:
        """How long to wait after the last loss: 30 s after the first, twice as long after each, 15 min at most."""
        return timedelta(seconds=min(FIRST_PAUSE_SECONDS * 2 ** max(self.failures - 1, 0), LONGEST_PAUSE_SECONDS))

    @property
    def due(self) -> datetime | None:
        """When the next claim may be created; None without failures, and while lost claims are not gone."""
        return None if self.since is None or self.failures == 0 else self.since + self.pause

    @property
    def pending(self) -> bool:
        """Whether a counted loss has not been answered with a replacement yet."""
        return self.failures > 0 and bool(self.lost) and not self.issued

    def count(self, names: Sequence[str], *, now: datetime, after_success: bool) -> Self:
        """The record after losing these claims.

        Losses before the next creation belong to the same round: they neither lengthen the pause nor advance the
        serial.
        """
        if self.pending:
            return replace(self, lost=tuple(sorted({*self.lost, *names})))
        failures = 1 if after_success else min(self.failures + 1, MOST_FAILURES)
        lost = tuple(sorted({*self.lost, *names}))
        return type(self)(serial=self.serial + 1, failures=failures, since=now, lost=lost)


def _names(value: object) -> tuple[str, ...]:
    """Strings of a list.

    Raises:
        TypeError: it is something else.
    """
    if value is None:
        return ()
    if not isinstance(value, list):
        raise TypeError(value)
    return tuple(str(name) for name in cast("list[object]", value))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What the decision is made from."""

    now: datetime
    wanted: int
    """Nodes the Workspace needs from claims, those it has otherwise deducted."""
    claims: Sequence[Claim]
    """Claims of this very Workspace, deleting ones included."""
    nodes: Mapping[str, Node]
    """Nodes by name."""
    attempts: Attempts
    expected: frozenset[str] = frozenset()
    """Names of the claims that existed at the end of the last pass, from the status."""
    refused: bool = False
    """Whether the API server refused the last creation: what the record lists as issued need not exist then."""
    proven: frozenset[str] = frozenset()
    """Names of absent claims of which an Event proves that they existed."""
    ready_since: datetime | None = None
    """Since when claims and nodes were all Ready, as the last pass saw it; None when they were not."""
    name: Callable[[int, int], str] = lambda index, serial: f"{index}-{serial}"
    """The name of the claim with an index and a serial."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do about claims now."""

    create: tuple[tuple[int, int], ...] = ()
    """Index and serial of each claim to create."""
    give_up: tuple[tuple[Claim, str], ...] = ()
    """Claims to delete, each with the reason in words."""
    attempts: Attempts = field(default_factory=Attempts)
    """The record to keep; write it before creating when it differs."""
    lost: tuple[str, ...] = ()
    """Names of the claims whose loss this decision counts."""
    unknown: tuple[str, ...] = ()
    """Names of replacements that were to be created by a pass that did not end, and are absent: created and lost, or
    never created."""
    next_at: datetime | None = None
    """When the next claim is created, at the latest; None when none is missing or it is created now."""
    leaving: tuple[str, ...] = ()
    """Names of the lost claims that have to go before the pause begins."""
    retry_at: datetime | None = None
    """When to look again because a pause ends or a timeout strikes then."""


def decide(situation: Situation, settings: WorkspaceSettings) -> Decision:
    """Create what is missing, at once the first time and after a pause when it was lost; give up what is broken."""
    now = situation.now
    give_up, deadlines = _broken(situation, settings)
    abandoned = {claim.name for claim, _ in give_up}
    kept = [claim for claim in situation.claims if not claim.deleting and claim.name not in abandoned]
    attempts = situation.attempts
    if attempts.since is not None and attempts.since > now:
        attempts = replace(attempts, since=now)
    missing = situation.wanted - len(kept)
    if missing <= 0:
        attempts, stable_at = _settled(situation, attempts, kept)
        looks = [*deadlines, *([stable_at] if stable_at else [])]
        return Decision(give_up=tuple(give_up), attempts=attempts, retry_at=min(looks, default=None))
    unknown = _unknown(situation, attempts)
    lost = _lost(situation, attempts, {claim.name for claim in kept})
    if lost:
        attempts = attempts.count(lost, now=now, after_success=_is_stable(situation))
    elif unknown:
        # Not counted as a loss, and not created at once either: the same name again, after the same pause.
        attempts = replace(attempts, since=now, issued=tuple(n for n in attempts.issued if n not in unknown))
    holds = {claim.name: until for claim in situation.claims if (until := _leaving_until(claim, now)) is not None}
    holds |= {name: _patience(now) for name in abandoned}
    leaving = tuple(sorted(holds.keys() & set(attempts.lost))) if attempts.pending else ()
    if attempts.pending:
        attempts = replace(attempts, since=None if leaving else attempts.since or now)
    due = max(holds[name] for name in leaving) + attempts.pause if leaving else attempts.due
    looks = [*deadlines, *holds.values()]
    waits = due is not None and due > now
    create = () if waits else _places(situation, kept, holds, attempts.serial)
    if create and attempts.failures:
        attempts = _issue(situation, attempts, [situation.name(*place) for place in create])
    return Decision(
        create=create,
        give_up=tuple(give_up),
        attempts=attempts,
        lost=lost,
        unknown=unknown,
        next_at=due if waits else None,
        leaving=leaving,
        retry_at=min([*looks, *([due] if due is not None and waits else [])], default=None),
    )


def _places(
    situation: Situation, kept: Sequence[Claim], holds: Mapping[str, datetime], serial: int
) -> tuple[tuple[int, int], ...]:
    """Index and serial of the claims to create: what is missing less the places that leaving claims still hold."""
    taken = {index_of(claim) for claim in situation.claims if claim in kept or claim.name in holds}
    missing = max(situation.wanted - len(kept) - len(holds), 0)
    free = [index for index in range(situation.wanted + len(taken)) if index not in taken]
    return tuple((index, serial) for index in free[:missing])


def _lost(situation: Situation, attempts: Attempts, kept: set[str]) -> tuple[str, ...]:
    """Claims that existed or are being deleted, are not kept, and are not counted yet."""
    proven = situation.proven & frozenset(attempts.issued)
    leaving = {claim.name for claim in situation.claims if claim.name not in kept}
    return tuple(sorted((situation.expected | proven | leaving) - kept - set(attempts.lost)))


def _unknown(situation: Situation, attempts: Attempts) -> tuple[str, ...]:
    """Replacements that are absent, and of which nothing proves that they were ever created."""
    if situation.refused:
        return ()
    present = {claim.name for claim in situation.claims}
    return tuple(sorted(set(attempts.issued) - present - situation.expected - situation.proven - set(attempts.lost)))


def _issue(situation: Situation, attempts: Attempts, names: Sequence[str]) -> Attempts:
    """The record with replacements about to be created. Counted names stay as long as something still lists them."""
    present = {claim.name for claim in situation.claims}
    issued = {*names, *(name for name in attempts.issued if name in present)}
    lost = tuple(name for name in attempts.lost if name in present or name in situation.expected)
    return replace(attempts, issued=tuple(sorted(issued)), lost=lost)


def _settled(situation: Situation, attempts: Attempts, kept: Sequence[Claim]) -> tuple[Attempts, datetime | None]:
    """The record when no claim is missing, and when it can be reset at the earliest."""
    if not attempts.failures or situation.ready_since is None or not all(claim.is_ready for claim in kept):
        return attempts, None
    if not _is_stable(situation):
        return attempts, situation.ready_since + timedelta(seconds=STABLE_SECONDS)
    present = {claim.name for claim in situation.claims} | situation.expected
    return Attempts(serial=attempts.serial, lost=tuple(name for name in attempts.lost if name in present)), None


def _is_stable(situation: Situation) -> bool:
    """Whether the claims were Ready long enough to end a row of losses."""
    since = situation.ready_since
    return since is not None and situation.now - since >= timedelta(seconds=STABLE_SECONDS)


def index_of(claim: Claim) -> int:
    """The claim's place in the Workspace; -1 for claims of upstream Kaito, which have none."""
    text = claim.annotations.get(labels.CLAIM_INDEX, "")
    return int(text) if text.isdecimal() and len(text) < 10 else -1


def _patience(now: datetime) -> datetime:
    return now + timedelta(seconds=DELETION_PATIENCE_SECONDS)


def _leaving_until(claim: Claim, now: datetime) -> datetime | None:
    """Until when a deleting claim holds its place; None when it does not, or is not being deleted."""
    deleted_at = claim.metadata.deletion_timestamp
    if deleted_at is None:
        return None
    until = _patience(deleted_at)
    return until if until > now else None


def _broken(situation: Situation, settings: WorkspaceSettings) -> tuple[list[tuple[Claim, str]], list[datetime]]:
    """Claims to give up now, and the moments at which others would be."""
    broken: list[tuple[Claim, str]] = []
    deadlines: list[datetime] = []
    for claim in situation.claims:
        if claim.deleting:
            continue
        verdict = _stuck(claim, settings) or _unhealthy(claim, situation.nodes, settings)
        if verdict is None:
            continue
        deadline, why = verdict
        if deadline <= situation.now:
            broken.append((claim, why))
        else:
            deadlines.append(deadline)
    return broken, deadlines


def _stuck(claim: Claim, settings: WorkspaceSettings) -> tuple[datetime, str] | None:
    """When a claim that has no machine yet is given up."""
    launched = claim.condition(claim.stages.launched)
    born = claim.metadata.creation_timestamp
    if born is None or claim.is_ready or claim.status.provider_id or (launched is not None and launched.is_true):
        return None
    limit = settings.node_provision_timeout
    return born + timedelta(seconds=limit), f"not launched within {limit:.0f} s"


def _unhealthy(claim: Claim, nodes: Mapping[str, Node], settings: WorkspaceSettings) -> tuple[datetime, str] | None:
    """When a claim whose node stays NotReady is given up."""
    node = nodes.get(claim.status.node_name)
    ready = node.condition("Ready") if node is not None else None
    if node is None or ready is None or ready.status == "True" or not settings.node_unhealthy_timeout:
        return None
    since = ready.last_transition_time or node.metadata.creation_timestamp
    if since is None:
        return None
    limit = settings.node_unhealthy_timeout
    return since + timedelta(seconds=limit), f"node {node.name} not Ready for {limit:.0f} s"
