"""State shared by the steps: dependencies of the process (`Dependencies`) and of one reconcile (`ReconcileContext`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import final

from kaito.api import labels
from kaito.api.karpenter import Claim
from kaito.cloud.provider import CloudProvider
from kaito.provisioner.deletions import DeletionTracker
from kaito.provisioner.future_times import FutureTimes
from kaito.provisioner.installation import Installation
from kaito.provisioner.launch_backoff import LaunchBackoff
from kaito.provisioner.metrics import ProvisionerMetrics
from kaito.provisioner.settings import ProvisionerSettings
from kaito.provisioner.status import StatusUpdate
from kaito.provisioner.unavailable_offerings import UnavailableOfferings
from kaito.runtime import Api, Request
from kaito.runtime.client import MergePatch
from kaito.runtime.tracing import NO_TRACER, Tracer


@final
@dataclass(frozen=True, slots=True)
class Dependencies:
    """Dependencies of the controllers; `main` creates them once per process."""

    cloud: CloudProvider
    settings: ProvisionerSettings
    kinds: Sequence[type[Claim]]
    """Kinds of claims to reconcile."""
    metrics: ProvisionerMetrics = field(default_factory=ProvisionerMetrics)
    backoff: LaunchBackoff = field(default_factory=LaunchBackoff)
    unavailable: UnavailableOfferings = field(default_factory=UnavailableOfferings)
    deletions: DeletionTracker = field(default_factory=DeletionTracker)
    installation: Installation = field(default_factory=Installation)
    future_times: FutureTimes = field(default_factory=FutureTimes)
    tracer: Tracer = NO_TRACER
    """Records the stages of a claim."""

    def forget(self, uid: str) -> None:
        """Drops the state of a claim that is launched or deleted, or whose launch starts over."""
        self.backoff.forget(uid)
        self.deletions.forget(uid)


@final
@dataclass(slots=True)
class ReconcileContext:
    """State of one reconcile of one claim."""

    request: Request[Claim]
    deps: Dependencies
    claim: Claim
    """The latest version, with the staged changes of its metadata."""
    status: StatusUpdate
    pending: dict[str, dict[str, str | None]] = field(default_factory=dict[str, dict[str, str | None]])
    """Changes of the claim's metadata that `write_metadata` sends."""
    expired: bool = False
    """Whether a deadline has passed: the claim is deleted after its status is written."""

    @classmethod
    def of(cls, request: Request[Claim], deps: Dependencies) -> "ReconcileContext":
        """Creates the context at the start of a reconcile."""
        return cls(request, deps, request.object, StatusUpdate(request.object))

    @property
    def api(self) -> Api:
        """The Kubernetes API."""
        return self.request.api

    @property
    def cloud(self) -> CloudProvider:
        """The cloud provider."""
        return self.deps.cloud

    @property
    def settings(self) -> ProvisionerSettings:
        """The provisioner's settings."""
        return self.deps.settings

    @property
    def now(self) -> datetime:
        """The current time."""
        return self.request.clock.now()

    @property
    def nodepool(self) -> str:
        """Value of the `nodepool` label of Karpenter's metrics."""
        return nodepool(self.claim)

    def age_seconds(self, time: datetime | None) -> float:
        """Seconds since `time`; 0 if it is not known, and at least those since this process has first seen it."""
        if time is None:
            return 0.0
        return self.deps.future_times.age_seconds(self.claim.uid, time, self.now)

    def stage_metadata(
        self, *, annotations: Mapping[str, str | None] | None = None, add_labels: Mapping[str, str] | None = None
    ) -> None:
        """Sets annotations (None removes one) and labels of `claim`; `write_metadata` sends them.

        The status is written after them. For changes that a later reconcile would make again: a process that dies
        before the write loses them.
        """
        metadata = self.claim.metadata
        changed = {
            name: value for name, value in (annotations or {}).items() if metadata.annotations.get(name) != value
        }
        if changed:
            self.pending.setdefault("annotations", {}).update(changed)
            merged = {**metadata.annotations, **changed}
            kept = {name: value for name, value in merged.items() if value is not None}
            metadata = metadata.evolve(annotations=kept)
        added = {name: value for name, value in (add_labels or {}).items() if metadata.labels.get(name) != value}
        if added:
            self.pending.setdefault("labels", {}).update(added)
            metadata = metadata.evolve(labels={**metadata.labels, **added})
        if metadata is not self.claim.metadata:
            self._replace(self.claim.evolve(metadata=metadata))

    async def write_metadata(self) -> None:
        """Sends the staged changes; sends no request if there are none."""
        if self.pending:
            document, self.pending = self.pending, {}
            self._replace(await self.api.patch(self.claim, MergePatch({"metadata": document})))

    async def set_metadata(
        self, *, annotations: Mapping[str, str | None] | None = None, add_labels: Mapping[str, str] | None = None
    ) -> None:
        """Stages annotations and labels of the claim, and sends them at once."""
        self.stage_metadata(annotations=annotations, add_labels=add_labels)
        await self.write_metadata()

    def _replace(self, claim: Claim) -> None:
        self.claim = self.status.claim = claim

    def event(self, reason: str, note: str, *, warning: bool = False) -> None:
        """Records an event about the claim."""
        self.request.event("Warning" if warning else "Normal", reason, note)


def nodepool(claim: Claim) -> str:
    """The node pool in the claim's labels: `karpenter.sh/nodepool`, or the older `provisioner-name` of Machines."""
    return claim.labels.get(labels.NODEPOOL) or claim.labels.get(labels.PROVISIONER_NAME) or ""


def parse_time(text: str) -> datetime | None:
    """Returns None if the text is not a timestamp with a time zone; users can edit the annotations it comes from."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None
