"""Decides which claims to create and delete: a pure function of the claims, the recorded attempts and the time.

The policy prevents three failures:

* Two nodes are bought for one place. Prevented by deterministic names (see `manifests.claim`).
* Claims are created in a loop against a quota that is exhausted. Prevented by a backoff that is recorded on the
  Workspace.
* A broken node is awaited indefinitely. Prevented by deleting claims that do not launch, or whose node stays NotReady.

A node that the cloud is about to take back is replaced at the notice: its claim is deleted, which drains the node, and
the next claim is created at once, unless nodes are evicted repeatedly.

A claim is lost if it was expected (the status of the last reconcile or the record lists it) and is absent, is being
deleted, or is deleted by this policy. The record lists the names of the losses that are counted, so that a loss counts
once although a reconcile may end between two writes. The backoff starts when the lost claims do not exist any more,
which takes minutes with a provisioner that has a finalizer.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self, cast, final

from kaito.api import Claim, labels
from kaito.runtime.kinds import Node
from kaito.workspace.alternatives import has_launched
from kaito.workspace.eviction import find_notice, is_spot
from kaito.workspace.settings import WorkspaceSettings

BACKOFF_BASE_SECONDS: Final = 30.0
BACKOFF_CAP_SECONDS: Final = 900.0

DELETION_GRACE_SECONDS: Final = 300.0
"""Time for which a terminating claim holds its place. After it, a replacement is created under the next name."""

STABLE_SECONDS: Final = 600.0
"""Time for which all claims must be Ready to end a series of losses. A node that joins and is lost repeatedly is
therefore replaced with growing backoff, too."""

MAX_FAILURES: Final = 32
"""Highest number of losses that is recorded. The backoff reaches its cap much earlier."""

MAX_CAUSE_CHARACTERS: Final = 600
"""Longest recorded cause of a loss."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisionAttempts:
    """Losses and replacements of a Workspace's claims, recorded in an annotation so that a restart keeps them."""

    serial: int = 0
    """Part of the next claim's name; only increases."""
    failures: int = 0
    """Number of losses since claims and nodes were last Ready for `STABLE_SECONDS`."""
    backoff_started_at: datetime | None = None
    """When the backoff began; None with failures means that the lost claims still exist."""
    lost: tuple[str, ...] = ()
    """Names of the claims whose loss is counted."""
    issued: tuple[str, ...] = ()
    """Names of the replacements since the last loss, recorded before they are created."""
    cause: str = ""
    """Why the last claim was lost; empty if unknown."""
    evicted: bool = False
    """Whether the cloud announced every counted loss. Such claims hold no place while they are deleted, and the first
    of a series is replaced without a backoff."""

    @classmethod
    def from_annotations(cls, annotations: Mapping[str, str]) -> Self:
        """Reads the record of a Workspace; returns an empty record if there is none or it is malformed."""
        try:
            record = json.loads(annotations.get(labels.PROVISION_ATTEMPTS, "{}"))
            since = record.get("since")
            return cls(
                serial=max(int(record.get("serial", 0)), 0),
                failures=min(max(int(record.get("failures", 0)), 0), MAX_FAILURES),
                backoff_started_at=datetime.fromisoformat(since).astimezone(UTC) if since else None,
                lost=_names(record.get("lost")),
                issued=_names(record.get("issued")),
                cause=str(record.get("cause", ""))[:MAX_CAUSE_CHARACTERS],
                evicted=record.get("evicted") is True,
            )
        except (ValueError, TypeError, AttributeError, OverflowError):
            return cls()

    def to_annotation(self) -> str:
        """Returns the value of the annotation."""
        record: dict[str, Any] = {"serial": self.serial, "failures": self.failures}
        if self.backoff_started_at is not None:
            record["since"] = self.backoff_started_at.isoformat()
        optional = {"lost": self.lost, "issued": self.issued, "cause": self.cause, "evicted": self.evicted}
        record |= {name: value for name, value in optional.items() if value}
        return json.dumps(record)

    def not_in_future(self, now: datetime) -> Self:
        """Returns the record with a backoff that has begun, because the clock may have been set back."""
        started = self.backoff_started_at
        return replace(self, backoff_started_at=now) if started is not None and started > now else self

    @property
    def backoff(self) -> timedelta:
        """Time between a loss and the replacement: 30 s after the first loss, doubled after each, at most 15 min; none
        after the first eviction."""
        if self.evicted and self.failures <= 1:
            return timedelta()
        return backoff_after(max(self.failures, 1))

    @property
    def next_attempt_at(self) -> datetime | None:
        """When the next claim may be created; None without failures, and while lost claims exist."""
        started = self.backoff_started_at
        return None if started is None or self.failures == 0 else started + self.backoff

    @property
    def is_replacement_pending(self) -> bool:
        """Whether a counted loss has no replacement yet."""
        return self.failures > 0 and bool(self.lost) and not self.issued

    def with_losses(self, names: Sequence[str], *, now: datetime, after_success: bool, evicted: bool = False) -> Self:
        """Returns the record after the loss of these claims.

        Losses before the next creation belong to the same attempt: they do not change the backoff or the serial.
        """
        if self.is_replacement_pending:
            return replace(self, lost=tuple(sorted({*self.lost, *names})), evicted=self.evicted and evicted)
        failures = 1 if after_success else min(self.failures + 1, MAX_FAILURES)
        lost = tuple(sorted({*self.lost, *names}))
        return type(self)(serial=self.serial + 1, failures=failures, backoff_started_at=now, lost=lost, evicted=evicted)


def backoff_after(failures: int) -> timedelta:
    """Returns the time to wait after the last of one or more failures: 30 s, doubled after each, at most 15 min."""
    return timedelta(seconds=min(BACKOFF_BASE_SECONDS * 2 ** (failures - 1), BACKOFF_CAP_SECONDS))


def _names(value: object) -> tuple[str, ...]:
    """Returns the strings of a list.

    Raises:
        TypeError: the value is not a list.
    """
    if value is None:
        return ()
    if not isinstance(value, list):
        raise TypeError(value)
    return tuple(str(name) for name in cast("list[object]", value))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimState:
    """Input of the decision."""

    now: datetime
    wanted: int
    """Number of nodes that the Workspace needs from claims, not counting the nodes that it has otherwise."""
    claims: Sequence[Claim]
    """Claims of this Workspace, terminating ones included."""
    nodes: Mapping[str, Node]
    """Nodes by name."""
    attempts: ProvisionAttempts
    expected: frozenset[str] = frozenset()
    """Names of the claims that existed at the end of the last reconcile, from the status."""
    creation_rejected: bool = False
    """Whether the API server rejected the last creation: issued claims then need not exist."""
    confirmed: frozenset[str] = frozenset()
    """Names of absent claims that existed according to an Event."""
    ready_since: datetime | None = None
    """Since when claims and nodes were all Ready at the end of the last reconcile; None if they were not."""
    foreign: Mapping[str, str] = field(default_factory=dict[str, str])
    """Names of claims that the Workspace does not use any more, each with the reason."""
    not_before: datetime | None = None
    """Earliest time of the next creation, because the cloud is out of every instance type; None for now."""
    claim_name: Callable[[int, int], str] = lambda index, serial: f"{index}-{serial}"
    """Returns the name of the claim with an index and a serial."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimDecision:
    """What to do about the claims."""

    create: tuple[tuple[int, int], ...] = ()
    """Index and serial of each claim to create."""
    delete: tuple[tuple[Claim, str], ...] = ()
    """Claims to delete because they do not become ready, each with the reason."""
    attempts: ProvisionAttempts = field(default_factory=ProvisionAttempts)
    """The new record; it must be written before claims are created."""
    lost: tuple[str, ...] = ()
    """Names of the claims whose loss this decision counts."""
    unconfirmed: tuple[str, ...] = ()
    """Names of replacements that an unfinished reconcile was to create and that are absent: they were created and lost,
    or were never created."""
    next_creation_at: datetime | None = None
    """Latest time of the next creation; None if no claim is missing, or if it is created now."""
    terminating: tuple[str, ...] = ()
    """Names of the lost claims that must be deleted before the backoff begins."""
    requeue_at: datetime | None = None
    """When to decide again, because a backoff or a timeout ends."""


def decide(state: ClaimState, settings: WorkspaceSettings) -> ClaimDecision:
    """Decides to create missing claims (immediately, or after a loss with backoff) and to delete broken ones."""
    now = state.now
    broken, deadlines = find_broken(state, settings)
    broken_names = {claim.name for claim, _ in broken}
    live = [claim for claim in state.claims if not claim.deleting and claim.name not in broken_names]
    attempts = _without_recovered(state.attempts.not_in_future(now), live)
    if state.wanted <= len(live):
        attempts, stable_at = _without_missing(state, attempts, live)
        times = [*deadlines, *([stable_at] if stable_at else [])]
        return ClaimDecision(delete=tuple(broken), attempts=attempts, requeue_at=min(times, default=None))
    unconfirmed = _unconfirmed(state, attempts)
    lost = _lost(state, attempts, {claim.name for claim in live})
    if lost:
        evicted = _evicted(state) & set(lost)
        is_eviction = evicted == set(lost)
        after_success = is_stable(state.ready_since, now) or (is_eviction and _were_stable(state, evicted))
        attempts = attempts.with_losses(lost, now=now, after_success=after_success, evicted=is_eviction)
    elif unconfirmed:
        # Not counted as a loss, and not created at once either: the same name again, after the same backoff.
        issued = tuple(name for name in attempts.issued if name not in unconfirmed)
        attempts = replace(attempts, backoff_started_at=now, issued=issued)
    held_until = {claim.name: until for claim in state.claims if (until := _held_until(claim, now)) is not None}
    held_until |= {name: _end_of_grace(now) for name in broken_names}
    if attempts.evicted:
        held_until = {name: until for name, until in held_until.items() if name not in attempts.lost}
    terminating = tuple(sorted(held_until.keys() & set(attempts.lost))) if attempts.is_replacement_pending else ()
    if attempts.is_replacement_pending:
        attempts = replace(attempts, backoff_started_at=None if terminating else attempts.backoff_started_at or now)
    due = attempts.next_attempt_at
    if terminating:
        due = max(held_until[name] for name in terminating) + attempts.backoff
    if state.not_before is not None:
        due = max(due, state.not_before) if due is not None else state.not_before
    must_wait = due is not None and due > now
    create = () if must_wait else _free_places(state, live, held_until, attempts.serial)
    if create and attempts.failures:
        attempts = _with_issued(state, attempts, [state.claim_name(*place) for place in create])
    times = [*deadlines, *held_until.values(), *([due] if due is not None and must_wait else [])]
    return ClaimDecision(
        create=create,
        delete=tuple(broken),
        attempts=attempts,
        lost=lost,
        unconfirmed=unconfirmed,
        next_creation_at=due if must_wait else None,
        terminating=terminating,
        requeue_at=min(times, default=None),
    )


def _without_recovered(attempts: ProvisionAttempts, live: Sequence[Claim]) -> ProvisionAttempts:
    """Returns the record without losses that did not happen: the claim became usable before it was deleted."""
    recovered = {claim.name for claim in live} & set(attempts.lost)
    if not recovered or not attempts.is_replacement_pending:
        return attempts
    lost = tuple(name for name in attempts.lost if name not in recovered)
    if lost:
        return replace(attempts, lost=lost)
    return replace(attempts, failures=attempts.failures - 1, backoff_started_at=None, lost=(), cause="", evicted=False)


def _free_places(
    state: ClaimState, live: Sequence[Claim], held_until: Mapping[str, datetime], serial: int
) -> tuple[tuple[int, int], ...]:
    """Returns index and serial of the claims to create: the missing ones, without the indexes that terminating claims
    hold."""
    taken = {index_of(claim) for claim in state.claims if claim in live or claim.name in held_until}
    missing = max(state.wanted - len(live) - len(held_until), 0)
    free = [index for index in range(state.wanted + len(taken)) if index not in taken]
    return tuple((index, serial) for index in free[:missing])


def _lost(state: ClaimState, attempts: ProvisionAttempts, live: set[str]) -> tuple[str, ...]:
    """Returns the claims that existed or are being deleted, are not live, and are not counted yet."""
    confirmed = state.confirmed & frozenset(attempts.issued)
    ending = {claim.name for claim in state.claims if claim.name not in live}
    return tuple(sorted((state.expected | confirmed | ending) - live - set(attempts.lost)))


def _evicted(state: ClaimState) -> set[str]:
    """Returns the claims whose node the cloud takes back: by its notice, or because Karpenter deletes the claim of a
    spot node that is still Ready, which it does when its queue of interruptions contains the node."""
    found: set[str] = set()
    for claim in state.claims:
        node = state.nodes.get(claim.status.node_name)
        if node is not None and (find_notice(node) or (claim.deleting and is_spot(node) and node.is_ready)):
            found.add(claim.name)
    return found


def _were_stable(state: ClaimState, names: set[str]) -> bool:
    """Whether each of the claims was Ready long enough to end a series of losses."""
    limit = state.now - timedelta(seconds=STABLE_SECONDS)
    ready = [claim.condition("Ready") for claim in state.claims if claim.name in names]
    times = [each.last_transition_time for each in ready if each is not None and each.is_true]
    return len(times) == len(names) and all(time is not None and time <= limit for time in times)


def _unconfirmed(state: ClaimState, attempts: ProvisionAttempts) -> tuple[str, ...]:
    """Returns the absent replacements for which there is no evidence that they were ever created."""
    if state.creation_rejected:
        return ()
    present = {claim.name for claim in state.claims}
    return tuple(sorted(set(attempts.issued) - present - state.expected - state.confirmed - set(attempts.lost)))


def _with_issued(state: ClaimState, attempts: ProvisionAttempts, names: Sequence[str]) -> ProvisionAttempts:
    """Adds replacements that are about to be created.

    Counted losses stay while the cluster or the status lists them.
    """
    present = {claim.name for claim in state.claims}
    issued = {*names, *(name for name in attempts.issued if name in present)}
    lost = tuple(name for name in attempts.lost if name in present or name in state.expected)
    return replace(attempts, issued=tuple(sorted(issued)), lost=lost)


def _without_missing(
    state: ClaimState, attempts: ProvisionAttempts, live: Sequence[Claim]
) -> tuple[ProvisionAttempts, datetime | None]:
    """Returns the record if no claim is missing, and the earliest time at which it can be reset."""
    if not attempts.failures or state.ready_since is None or not all(claim.is_ready for claim in live):
        return attempts, None
    if not is_stable(state.ready_since, state.now):
        return attempts, state.ready_since + timedelta(seconds=STABLE_SECONDS)
    present = {claim.name for claim in state.claims} | state.expected
    lost = tuple(name for name in attempts.lost if name in present)
    return ProvisionAttempts(serial=attempts.serial, lost=lost), None


def is_stable(ready_since: datetime | None, now: datetime) -> bool:
    """Whether the claims were Ready long enough to end a series of losses."""
    return ready_since is not None and now - ready_since >= timedelta(seconds=STABLE_SECONDS)


def index_of(claim: Claim) -> int:
    """Returns the claim's place in the Workspace; -1 for claims of upstream Kaito, which have none."""
    text = claim.annotations.get(labels.CLAIM_INDEX, "")
    return int(text) if text.isdecimal() and len(text) < 10 else -1


def _end_of_grace(deleted_at: datetime) -> datetime:
    return deleted_at + timedelta(seconds=DELETION_GRACE_SECONDS)


def _held_until(claim: Claim, now: datetime) -> datetime | None:
    """Returns until when a terminating claim holds its place; None if it does not, or is not being deleted."""
    deleted_at = claim.metadata.deletion_timestamp
    if deleted_at is None:
        return None
    until = _end_of_grace(deleted_at)
    return until if until > now else None


def find_broken(state: ClaimState, settings: WorkspaceSettings) -> tuple[list[tuple[Claim, str]], list[datetime]]:
    """Returns the claims to delete now with the reason, and the deadlines of others.

    These are claims of another instance type, on a node that the cloud takes back, that do not launch, or whose node is
    not Ready for too long.
    """
    broken: list[tuple[Claim, str]] = []
    deadlines: list[datetime] = []
    for claim in state.claims:
        if claim.deleting:
            continue
        if claim.name in state.foreign:
            broken.append((claim, state.foreign[claim.name]))
            continue
        notice = _eviction_of(claim, state.nodes)
        if notice:
            broken.append((claim, notice))
            continue
        found = _launch_deadline(claim, settings) or _health_deadline(claim, state.nodes, settings)
        if found is None:
            continue
        deadline, reason = found
        if deadline <= state.now:
            broken.append((claim, reason))
        else:
            deadlines.append(deadline)
    return broken, deadlines


def _eviction_of(claim: Claim, nodes: Mapping[str, Node]) -> str:
    """Returns why a claim is replaced before its node is evicted; empty if the cloud announced nothing."""
    node = nodes.get(claim.status.node_name)
    notice = find_notice(node) if node is not None else ""
    return f"the cloud evicts node {claim.status.node_name}: {notice}" if notice else ""


def _launch_deadline(claim: Claim, settings: WorkspaceSettings) -> tuple[datetime, str] | None:
    """Returns when a claim without an instance is deleted, and the reason; None if it has launched."""
    created = claim.metadata.creation_timestamp
    if created is None or has_launched(claim):
        return None
    limit = settings.node_provision_timeout_seconds
    return created + timedelta(seconds=limit), f"not launched within {limit:.0f} s"


def _health_deadline(
    claim: Claim, nodes: Mapping[str, Node], settings: WorkspaceSettings
) -> tuple[datetime, str] | None:
    """Returns when a claim with a NotReady node is deleted, and the reason; None if the node is Ready."""
    limit = settings.node_unhealthy_timeout_seconds
    node = nodes.get(claim.status.node_name)
    ready = node.condition("Ready") if node is not None else None
    if node is None or ready is None or ready.status == "True" or not limit:
        return None
    since = ready.last_transition_time or node.metadata.creation_timestamp
    if since is None:
        return None
    return since + timedelta(seconds=limit), f"node {node.name} not Ready for {limit:.0f} s"
