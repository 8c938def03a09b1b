"""The objects of one Workspace that were read from a cluster, and look-ups in them."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, cast, final

from kaito.api import Claim, Workspace, conditions, labels
from kaito.diagnosis.result import EventNote
from kaito.models.copies import nodes_before_plan
from kaito.runtime.kinds import Deployment, Event, Job, Namespace, Node, Pod, Service, StatefulSet
from kaito.runtime.meta import Condition, Resource, find_condition
from kaito.workspace.claim_policy import ProvisionAttempts
from kaito.workspace.events import last_seen_at
from kaito.workspace.failure import shorten
from kaito.workspace.settings import WorkspaceSettings

CONTROLLERS: Final = (
    "app.kubernetes.io/name in (workspace-controller, workspace, gpu-provisioner, karpenter, azure-karpenter-provider)"
)
"""Label selector of the Deployments of the controllers, those of upstream Kaito included."""

EVENT_CHARACTERS: Final = 400
"""Longest note of an Event in a diagnosis."""

_NEXT = re.compile(r"; (?:next attempt at|the next claim is created at) (\d{4}-\d\d-\d\dT[0-9:.]+Z)")
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Everything that a diagnosis reads. Collections contain only objects that belong to the Workspace."""

    now: datetime
    workspace: Workspace
    claims: Sequence[Claim] = ()
    """Sorted by name; terminating ones included."""
    nodes: Sequence[Node] = ()
    stateful_sets: Sequence[StatefulSet] = ()
    job: Job | None = None
    pods: Sequence[Pod] = ()
    services: Sequence[Service] = ()
    events: Sequence[Event] = ()
    """Events about any of the objects."""
    namespace: Namespace | None = None
    controllers: Sequence[Deployment] = ()
    """Deployments of the workspace controller and of provisioners."""
    settings: WorkspaceSettings = field(default_factory=WorkspaceSettings)
    """Settings of the controller in the cluster, for its timeouts; the defaults if they are unknown."""
    unread: Mapping[str, str] = field(default_factory=dict[str, str])
    """What could not be read, by plural kind (`nodes`, `claims`), each with the reason."""

    @property
    def attempts(self) -> ProvisionAttempts:
        """The controller's record of lost claims; empty for a Workspace of upstream Kaito."""
        return ProvisionAttempts.from_annotations(self.workspace.annotations)

    @property
    def live_claims(self) -> list[Claim]:
        """Claims that are not being deleted."""
        return [claim for claim in self.claims if not claim.deleting]

    @property
    def claim_condition(self) -> Condition | None:
        """The condition of the Workspace about its claims; None with existing nodes."""
        return self.condition(conditions.MACHINE_READY) or self.condition(conditions.NODE_CLAIM_READY)

    @property
    def has_claims(self) -> bool:
        """Whether the Workspace gets its nodes from claims."""
        return bool(self.claims) or self.claim_condition is not None

    @property
    def wanted_nodes(self) -> int:
        """Number of nodes that the Workspace needs; as far as it is known."""
        if self.workspace.spec.replicas == 0:
            return 0
        return nodes_before_plan(self.workspace)

    def condition(self, condition_type: str) -> Condition | None:
        """Returns a condition of the Workspace."""
        return find_condition(self.workspace.status.conditions, condition_type)

    def is_true(self, condition_type: str) -> bool:
        """Whether a condition of the Workspace is True."""
        found = self.condition(condition_type)
        return found is not None and found.is_true

    def node(self, name: str) -> Node | None:
        """Returns a node by name."""
        return next((node for node in self.nodes if node.name == name), None)

    def controller(self, *words: str) -> Deployment | None:
        """Returns the first Deployment whose name contains one of the words."""
        return next((each for each in self.controllers if any(word in each.name for word in words)), None)

    def age_seconds(self, obj: Resource) -> float:
        """Returns the age of an object; 0 if its creation time is unknown."""
        created = obj.metadata.creation_timestamp
        return max((self.now - created).total_seconds(), 0.0) if created is not None else 0.0

    def events_of(self, obj: Resource) -> list[Event]:
        """Returns the Events about an object, the last one first."""
        found = [event for event in self.events if _regards(event, obj)]
        return sorted(found, key=last_seen_at, reverse=True)

    def event_note(self, obj: Resource, *reasons: str) -> EventNote | None:
        """Returns the Event that explains an object's state.

        That is the last one with one of the reasons, else the last Warning, else the last one.
        """
        found = self.events_of(obj)
        preferred = [event for event in found if event.reason in reasons]
        warnings = [event for event in found if event.type == "Warning"]
        event = next(iter(preferred or warnings or found), None)
        return None if event is None else note_of(event)

    def since(self, obj: Resource, condition: Condition) -> datetime | None:
        """Returns since when a condition has its reason.

        `lastTransitionTime` changes only with the status. If the reason changed later, its Event has the time.
        """
        changed = condition.last_transition_time
        firsts = [first_seen_at(event) for event in self.events_of(obj) if event.reason == condition.reason]
        first = min((time for time in firsts if changed is None or time > changed), default=None)
        return first or changed or obj.metadata.creation_timestamp


def _regards(event: Event, obj: Resource) -> bool:
    regarding = event.regarding
    if (regarding.kind, regarding.name) != (obj.kind, obj.name):
        return False
    if obj.namespace and regarding.namespace and regarding.namespace != obj.namespace:
        return False
    # Events about nodes have the node's name as UID (kubelet), or its UID (controllers).
    return regarding.uid in {None, "", obj.uid, obj.name}


def first_seen_at(event: Event) -> datetime:
    """Returns the time of the first occurrence of an Event."""
    times = [event.deprecated_first_timestamp, event.event_time, event.metadata.creation_timestamp]
    return min((time for time in times if time is not None), default=last_seen_at(event))


def count_of(event: Event) -> int:
    """Returns how often an Event occurred, at least 1."""
    return max(event.series.count if event.series is not None else event.deprecated_count or 1, 1)


def note_of(event: Event) -> EventNote:
    """Returns the parts of an Event that a diagnosis contains."""
    note = shorten(event.note, EVENT_CHARACTERS)
    return EventNote(
        reason=event.reason, note=note, warning=event.type == "Warning", at=last_seen_at(event), count=count_of(event)
    )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRecord:
    """What gpu-provisioner recorded about the failed launches of a claim."""

    failures: int = 0
    next_attempt_at: datetime | None = None
    refused: Mapping[str, datetime] = field(default_factory=dict[str, datetime])
    """Offerings that are unavailable, each with the time from which it may be tried again."""

    @classmethod
    def of(cls, claim: Claim) -> "LaunchRecord":
        """Reads the record of a claim; returns an empty one if it has none, or it is malformed."""
        try:
            document: object = json.loads(claim.annotations.get(labels.LAUNCH_RECORD, "{}"))
        except (ValueError, RecursionError):
            return cls()
        if not isinstance(document, Mapping):
            return cls()
        record = cast("Mapping[str, Any]", document)
        failures = record.get("failures")
        refused: object = record.get("refused")
        entries: Mapping[str, object] = cast("Mapping[str, object]", refused) if isinstance(refused, Mapping) else {}
        times = {name: _time(_field(entry, "retry")) for name, entry in entries.items()}
        return cls(
            failures=failures if isinstance(failures, int) and not isinstance(failures, bool) else 0,
            next_attempt_at=_time(record.get("next")),
            refused={name: time for name, time in times.items() if time is not None},
        )


def _field(document: object, name: str) -> object:
    return cast("Mapping[str, object]", document).get(name) if isinstance(document, Mapping) else None


def _time(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def next_time(message: str) -> datetime | None:
    """Returns the time of the next attempt that a message of the controllers contains; None if it contains none."""
    found = _NEXT.search(message)
    return _time(found[1]) if found is not None else None


def without_next_time(message: str) -> str:
    """Returns a message without the time of the next attempt, which the next steps contain."""
    return _NEXT.sub("", message)


def parse_go_duration(text: str) -> timedelta | None:
    """Reads a duration as Go prints it, such as `2m40s`; None if the text is not one."""
    found = _DURATION.fullmatch(text)
    if found is None or not any(found.groups()):
        return None
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)


def latest(times: Iterable[datetime | None]) -> datetime | None:
    """Returns the latest time that is known."""
    return max((time for time in times if time is not None), default=None)
