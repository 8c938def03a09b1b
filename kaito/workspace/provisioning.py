"""Which claims to create and which to give up: a pure decision over what exists, what was tried, and the time.

Three things must never happen: two nodes bought for one place, a claim created in a loop against a quota that will not
move, and a broken node waited for in silence. The first is met by names (see `manifests.claim`), the second by a
growing pause kept on the Workspace, the third by giving up claims that do not launch or whose node stays NotReady.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Self, final

from kaito.api import Claim, labels
from kaito.runtime.kinds import Node
from kaito.workspace.settings import WorkspaceSettings

FIRST_PAUSE_SECONDS = 30.0
LONGEST_PAUSE_SECONDS = 900.0
DELETION_PATIENCE_SECONDS = 300.0
"""A deleting claim holds its place this long; then a replacement is made under the next name."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """What replacing claims has cost so far; an annotation of the Workspace, so that a restart knows it too."""

    serial: int = 0
    """Part of the next claim's name; never goes back."""
    failures: int = 0
    """Claims lost in a row since one last became ready."""
    since: datetime | None = None
    """When the last one was lost."""

    @classmethod
    def read(cls, annotations: Mapping[str, str]) -> Self:
        """The record on a Workspace; an empty one when there is none, or when somebody broke it."""
        try:
            record = json.loads(annotations.get(labels.PROVISION_ATTEMPTS, "{}"))
            since = record.get("since")
            return cls(
                serial=int(record.get("serial", 0)),
                failures=int(record.get("failures", 0)),
                since=datetime.fromisoformat(since).astimezone(UTC) if since else None,
            )
        except (ValueError, TypeError, AttributeError):
            return cls()

    def write(self) -> str:
        """The annotation's value."""
        since = {"since": self.since.isoformat()} if self.since else {}
        return json.dumps({"serial": self.serial, "failures": self.failures, **since})

    @property
    def due(self) -> datetime | None:
        """When the next claim may be created: 30 s after the first loss, twice as long after each, 15 min at most."""
        if self.since is None or self.failures == 0:
            return None
        pause = min(FIRST_PAUSE_SECONDS * 2 ** (self.failures - 1), LONGEST_PAUSE_SECONDS)
        return self.since + timedelta(seconds=pause)

    def lost(self, now: datetime, *, after_success: bool) -> Self:
        """The record after losing a claim; one that had been ready starts the pauses anew."""
        return type(self)(serial=self.serial + 1, failures=1 if after_success else self.failures + 1, since=now)


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
    created_before: bool
    """Whether the last pass left with all its claims in place: a missing one was then lost since."""
    ready_before: bool
    """Whether an earlier pass saw them all ready."""


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
    retry_at: datetime | None = None
    """When to look again because a pause ends or a timeout strikes then."""


def decide(situation: Situation, settings: WorkspaceSettings) -> Decision:
    """Create what is missing, at once the first time and after a pause when it was lost; give up what is broken."""
    now = situation.now
    give_up, deadlines = _broken(situation, settings)
    abandoned = {claim.name for claim, _ in give_up}
    holding = [c for c in situation.claims if c.name not in abandoned and not _released(c, now)]
    missing = situation.wanted - len(holding) - len(abandoned)
    leaving = [
        c.metadata.deletion_timestamp + timedelta(seconds=DELETION_PATIENCE_SECONDS)
        for c in holding
        if c.metadata.deletion_timestamp is not None
    ]
    if missing <= 0:
        return Decision(
            give_up=tuple(give_up),
            attempts=situation.attempts,
            retry_at=min([*deadlines, *leaving], default=None),
        )
    attempts = situation.attempts
    if situation.created_before:
        attempts = attempts.lost(now, after_success=situation.ready_before)
    due = attempts.due
    if due is not None and due > now:
        return Decision(give_up=tuple(give_up), attempts=attempts, retry_at=min([due, *deadlines, *leaving]))
    taken = {index_of(claim) for claim in holding}
    free = [index for index in range(situation.wanted + len(holding)) if index not in taken]
    return Decision(
        create=tuple((index, attempts.serial) for index in free[:missing]),
        give_up=tuple(give_up),
        attempts=attempts,
        retry_at=min([*deadlines, *leaving], default=None),
    )


def index_of(claim: Claim) -> int:
    """The claim's place in the Workspace; -1 for claims of upstream Kaito, which have none."""
    text = claim.annotations.get(labels.CLAIM_INDEX, "")
    return int(text) if text.isdigit() else -1


def _released(claim: Claim, now: datetime) -> bool:
    """Whether a deleting claim no longer holds its place."""
    gone_since = claim.metadata.deletion_timestamp
    return gone_since is not None and now - gone_since >= timedelta(seconds=DELETION_PATIENCE_SECONDS)


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
