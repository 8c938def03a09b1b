"""Chooses one of the instance types of `resource.instanceTypes`: pure functions of plans, claims, record and time.

Claims that exist decide, so that neither a restart nor a stale cache changes the instance type of a Workspace. Without
claims, the recorded instance type is used, else the first one in order that the cloud was not out of. A Workspace moves
to the next alternative only while not even one copy of its model has nodes, or if its annotation requests it.

A stock-out is recorded per instance type, zone and capacity type, in an annotation of the Workspace that is written
before a claim of the next alternative is created. The pause before an alternative is tried again doubles with each
failure, up to a limit.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self, cast, final

from kaito.api import Claim, labels
from kaito.api.karpenter.conditions import (
    BLOCKED_BY_CLOUD,
    INSUFFICIENT_CAPACITY,
    LAUNCH_TIMEOUT,
    QUOTA_EXCEEDED,
    UNSUPPORTED_INSTANCE_TYPE,
)
from kaito.models.instance_types import same_size
from kaito.workspace.budget import Limits

PAUSE_BASE_SECONDS: Final = 600.0
PAUSE_CAP_SECONDS: Final = 3600.0

FORGET_SECONDS: Final = 6 * 3600.0
"""Time after the end of a pause for which the number of failures is kept."""

MAX_FAILURES: Final = 32
MAX_STOCK_OUTS: Final = 64
"""Number of recorded offerings; those that are tried again first are dropped first."""

MAX_MESSAGE_CHARACTERS: Final = 300

REFUSED: Final = frozenset({BLOCKED_BY_CLOUD, INSUFFICIENT_CAPACITY, QUOTA_EXCEEDED, UNSUPPORTED_INSTANCE_TYPE})
"""Reasons of a failed launch after which another instance type may succeed. A policy of the cloud may forbid one size;
a lock or a full subnet stops every one, and then the pauses between the attempts grow as without capacity."""

_TIMED_OUT: Final = re.compile(rf"{LAUNCH_TIMEOUT}|not launched within .* is being created")

_IN_TEXT: Final = tuple(sorted(REFUSED))
"""Words in the cause of a lost claim. Karpenter reports `InsufficientCapacityError` in an Event."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StockOut:
    """Why and until when an offering is not tried."""

    reason: str
    message: str = ""
    failures: int = 1
    """Consecutive failures."""
    retry_at: datetime

    def is_paused(self, now: datetime) -> bool:
        """Whether the offering must not be tried yet.

        A pause that is longer than any was recorded with a clock ahead, and does not count; twice the longest pause
        allows for replicas whose clocks differ.
        """
        return now < self.retry_at <= now + timedelta(seconds=2 * PAUSE_CAP_SECONDS)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AlternativesRecord:
    """The chosen instance type and the stock-outs of a Workspace."""

    chosen: str = ""
    """Empty before the first claim, and after a move until the next claim."""
    stock_outs: Mapping[str, StockOut] = field(default_factory=dict[str, StockOut])
    """By key of the offering."""

    @classmethod
    def from_annotations(cls, annotations: Mapping[str, str]) -> Self:
        """Reads the record of a Workspace; entries that are malformed are ignored."""
        try:
            document: object = json.loads(annotations.get(labels.ALTERNATIVES, "{}"))
        except (ValueError, RecursionError):
            return cls()
        if not isinstance(document, dict):
            return cls()
        record = cast("dict[str, Any]", document)
        chosen, refused = record.get("chosen"), record.get("refused")
        entries = cast("dict[str, Any]", refused) if isinstance(refused, dict) else {}
        parsed = {key: _stock_out(value) for key, value in list(entries.items())[:MAX_STOCK_OUTS]}
        return cls(
            chosen=chosen if isinstance(chosen, str) else "",
            stock_outs={key: entry for key, entry in parsed.items() if entry is not None},
        )

    def to_annotation(self) -> str:
        """Returns the value of the annotation."""
        refused = {
            key: {
                "reason": entry.reason,
                "message": entry.message,
                "failures": entry.failures,
                "retry": entry.retry_at.isoformat(),
            }
            for key, entry in sorted(self.stock_outs.items())
        }
        record: dict[str, Any] = {"chosen": self.chosen} if self.chosen else {}
        return json.dumps(record | ({"refused": refused} if refused else {}))

    def with_stock_out(self, keys: Iterable[str], reason: str, message: str, *, now: datetime) -> Self:
        """Returns the record after the cloud refused the offerings; no instance type is chosen any more."""
        current = {key: entry for key, entry in self.stock_outs.items() if not _is_forgotten(entry, now)}
        for key in keys:
            before = current.get(key)
            failures = min(before.failures + 1, MAX_FAILURES) if before is not None else 1
            text = " ".join(message.split())[:MAX_MESSAGE_CHARACTERS]
            retry_at = (now + pause(failures)).replace(microsecond=0)
            current[key] = StockOut(reason=reason, message=text, failures=failures, retry_at=retry_at)
        latest = sorted(current.items(), key=lambda item: item[1].retry_at, reverse=True)[:MAX_STOCK_OUTS]
        return replace(self, chosen="", stock_outs=dict(latest))

    def without(self, keys: Iterable[str]) -> Self:
        """Returns the record after the cloud provided the offerings."""
        provided = set(keys)
        return replace(self, stock_outs={k: entry for k, entry in self.stock_outs.items() if k not in provided})

    def paused(self, keys: Sequence[str], now: datetime) -> StockOut | None:
        """Returns the entry whose pause ends first if all offerings are paused, else None."""
        found = [entry for key in keys if (entry := self.stock_outs.get(key)) is not None and entry.is_paused(now)]
        return min(found, key=lambda entry: entry.retry_at) if keys and len(found) == len(keys) else None


def _stock_out(value: object) -> StockOut | None:
    """Returns the entry of a record; None if it is malformed."""
    if not isinstance(value, dict):
        return None
    entry = cast("dict[str, Any]", value)
    try:
        retry_at = datetime.fromisoformat(str(entry.get("retry"))).astimezone(UTC)
        failures = min(max(int(entry.get("failures", 1)), 1), MAX_FAILURES)
    except (ValueError, TypeError, OverflowError):
        return None
    reason, message = entry.get("reason"), entry.get("message")
    return StockOut(
        reason=reason if isinstance(reason, str) else "",
        message=message[:MAX_MESSAGE_CHARACTERS] if isinstance(message, str) else "",
        failures=failures,
        retry_at=retry_at,
    )


def pause(failures: int) -> timedelta:
    """Returns the time before an offering is tried again: 10 min, doubled after each failure, at most 60 min."""
    return timedelta(seconds=min(PAUSE_BASE_SECONDS * 2 ** max(failures - 1, 0), PAUSE_CAP_SECONDS))


def _is_forgotten(entry: StockOut, now: datetime) -> bool:
    return now - entry.retry_at > timedelta(seconds=FORGET_SECONDS)


def offering_keys(instance_type: str, capacity_types: Sequence[str], zones: Sequence[str]) -> tuple[str, ...]:
    """Returns the keys of the offerings: instance type, zone (empty: any) and capacity type."""
    return tuple(
        f"{instance_type.lower()}/{zone}/{capacity}"
        for capacity in capacity_types or ("on-demand",)
        for zone in zones or ("",)
    )


def keys_of_claim(claim: Claim) -> tuple[str, ...]:
    """Returns the keys of the offerings that a claim allows."""
    values = claim.spec.values
    return offering_keys(claim.instance_type, values(labels.CAPACITY_TYPE), values(labels.ZONE))


def has_launched(claim: Claim) -> bool:
    """Whether the claim has an instance."""
    launched = claim.condition(claim.stages.launched)
    return claim.is_ready or bool(claim.status.provider_id) or (launched is not None and launched.is_true)


def refusal(claim: Claim) -> tuple[str, str] | None:
    """Returns reason and message if the cloud has none of the offerings that a claim allows; None if unknown."""
    launched = claim.condition(claim.stages.launched)
    if has_launched(claim) or launched is None or launched.status != "False" or launched.reason not in REFUSED:
        return None
    return launched.reason, launched.message


def refusal_in(cause: str) -> str:
    """Returns the reason in the cause of a lost claim after which another instance type may succeed; empty if none.

    A creation that the cloud accepted and did not finish in time is one of them.
    """
    found = next((reason for reason in _IN_TEXT if reason in cause), "")
    return found or (LAUNCH_TIMEOUT if _TIMED_OUT.search(cause) else "")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One alternative as it was planned."""

    instance_type: str
    """The cloud's name."""
    keys: tuple[str, ...] = ()
    """Offerings that its nodes may have."""
    nodes: int = 0
    """Number of planned nodes; 0 without a plan."""
    problem: str = ""
    """Why it cannot run the model; empty if it can."""
    over_budget: str = ""
    """Why it is not bought although it can run the model; empty if it may be bought."""
    is_listed: bool = True
    """Whether the Workspace names it. Another one is only planned because the Workspace has claims of it."""

    @property
    def is_usable(self) -> bool:
        """Whether claims of it may be created, if the cloud has capacity."""
        return not self.problem and not self.over_budget and self.is_listed


def describe_why(instance_type: str, why: str) -> str:
    """Returns why an instance type is not used, with its name, which some messages contain."""
    return why if why.startswith((instance_type, f"'{instance_type}'")) else f"{instance_type}: {why}"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """An alternative that was not chosen, and why."""

    instance_type: str
    why: str
    retry_at: datetime | None = None
    """When it is tried again; None if only an edit can make it usable."""

    def __str__(self) -> str:
        at = f", tried again at {self.retry_at:%Y-%m-%dT%H:%M:%SZ}" if self.retry_at is not None else ""
        return f"{describe_why(self.instance_type, self.why)}{at}"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The chosen alternative of a Workspace."""

    candidate: Candidate
    position: int
    """Index in the list of alternatives; that of the first one with the same instance type."""
    passed: tuple[Passed, ...] = ()
    """The alternatives before it that are not used."""
    candidates: tuple[Candidate, ...] = ()
    """All alternatives in order."""
    resume_at: datetime | None = None
    """When the next claim may be created, because the cloud is out of every alternative; None if one may be now."""
    is_settled: bool = False
    """Whether claims that exist decided."""

    @property
    def usable(self) -> int:
        """Number of alternatives that can be bought if the cloud has them."""
        return sum(candidate.is_usable for candidate in self.candidates)

    def describe_passed(self) -> str:
        """Returns why the earlier alternatives are not used, as the end of a message; empty if there are none."""
        return f"; passed: {'; '.join(map(str, self.passed))}" if self.passed else ""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionInputs:
    """What the choice depends on besides the Workspace."""

    record: AlternativesRecord = field(default_factory=AlternativesRecord)
    claims: tuple[Claim, ...] = ()
    """The Workspace's claims."""
    now: datetime | None = None
    """None to ignore recorded stock-outs."""
    limits: Limits | None = None
    """Limits of the cost; None if there are none."""


def settled_type(claims: Sequence[Claim], record: AlternativesRecord, now: datetime) -> str:
    """Returns the instance type that the existing claims decide; empty if none of them decides.

    Claims with an instance have precedence. A claim without one does not decide if the record contains that its
    offerings were refused: it is about to be deleted.
    """
    live = [claim for claim in claims if not claim.deleting and claim.instance_type]
    launched = [claim for claim in live if has_launched(claim)]
    pending = [claim for claim in live if record.paused(keys_of_claim(claim), now) is None]
    for group in (launched, pending):
        counts: dict[str, int] = {}
        for claim in group:
            counts[claim.instance_type] = counts.get(claim.instance_type, 0) + 1
        if counts:
            return max(counts, key=lambda name: (counts[name], same_size(name, record.chosen), name))
    return ""


def choose(
    candidates: Sequence[Candidate],
    record: AlternativesRecord,
    claims: Sequence[Claim],
    *,
    now: datetime | None,
) -> Choice | None:
    """Returns the chosen alternative; None if no alternative can be used.

    Args:
        candidates: the alternatives in order, and the instance types of claims that are not among them.
        record: of the Workspace.
        claims: of the Workspace.
        now: the current time; None to ignore recorded stock-outs.
    """
    settled = settled_type(claims, record, now) if now is not None else ""
    if settled:  # also if the model cannot run on it any more: an edit must not delete nodes
        for index, candidate in enumerate(candidates):
            if same_size(candidate.instance_type, settled):
                return _choice(candidates, index, record, now, is_settled=True)
    usable = [index for index, candidate in enumerate(candidates) if candidate.is_usable]
    if not usable:
        return None
    open_ones = [i for i in usable if now is None or record.paused(candidates[i].keys, now) is None]
    recorded = [i for i in open_ones if record.chosen and same_size(candidates[i].instance_type, record.chosen)]
    if open_ones:
        return _choice(candidates, (recorded or open_ones)[0], record, now)
    ends = {i: entry.retry_at for i in usable if now and (entry := record.paused(candidates[i].keys, now))}
    first = min(ends, key=lambda index: (ends[index], index))
    return replace(_choice(candidates, first, record, now, every=True), resume_at=ends[first])


def _choice(
    candidates: Sequence[Candidate],
    index: int,
    record: AlternativesRecord,
    now: datetime | None,
    *,
    is_settled: bool = False,
    every: bool = False,
) -> Choice:
    """Returns the choice of one candidate, with the reasons why the earlier ones, or all, are not used."""
    before = [each for each in (candidates if every else candidates[:index]) if each.is_listed]
    passed = [_passed(candidate, record, now) for candidate in before]
    return Choice(
        candidate=candidates[index],
        position=index,
        passed=tuple(passed),
        candidates=tuple(candidates),
        is_settled=is_settled,
    )


def _passed(candidate: Candidate, record: AlternativesRecord, now: datetime | None) -> Passed:
    why = candidate.problem or candidate.over_budget
    if why:
        return Passed(instance_type=candidate.instance_type, why=why)
    paused = record.paused(candidate.keys, now) if now is not None else None
    entry = paused or next(filter(None, map(record.stock_outs.get, candidate.keys)), None)
    if entry is None:
        return Passed(instance_type=candidate.instance_type, why="claims of another instance type exist")
    cause = f"{entry.reason}: {entry.message}" if entry.message else entry.reason
    return Passed(instance_type=candidate.instance_type, why=cause, retry_at=paused.retry_at if paused else None)
