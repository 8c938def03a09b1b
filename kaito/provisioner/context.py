"""What the steps share: the tools of the process (`Tools`) and the state of one reconcile (`Pass`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import final

from kaito.api import labels
from kaito.api.karpenter import Claim
from kaito.cloud.provider import Provider
from kaito.provisioner.installation import Installation
from kaito.provisioner.ledger import Ledger
from kaito.provisioner.metrics import ProvisionerMetrics
from kaito.provisioner.report import Report
from kaito.provisioner.settings import ProvisionerSettings
from kaito.runtime import Again, Api, Request
from kaito.runtime.client import MergePatch


@final
@dataclass(frozen=True, slots=True)
class Tools:
    """Made once in `main`, given to every controller."""

    cloud: Provider
    settings: ProvisionerSettings
    kinds: Sequence[type[Claim]]
    """Which claims are served."""
    metrics: ProvisionerMetrics = field(default_factory=ProvisionerMetrics)
    ledger: Ledger = field(default_factory=Ledger)
    installation: Installation = field(default_factory=Installation)


@final
@dataclass(slots=True)
class Pass:
    """One reconcile of one claim."""

    request: Request[Claim]
    tools: Tools
    claim: Claim
    """The latest version: a step that writes the claim's metadata replaces it."""
    report: Report
    wakes: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])
    """When to look again, in seconds from now, and why."""
    expired: bool = False
    """A deadline passed: the claim is deleted once its status says so."""

    @classmethod
    def of(cls, request: Request[Claim], tools: Tools) -> "Pass":
        """The beginning of a reconcile."""
        return cls(request, tools, request.object, Report(request.object))

    @property
    def api(self) -> Api:
        """Reads and writes."""
        return self.request.api

    @property
    def cloud(self) -> Provider:
        """The cloud."""
        return self.tools.cloud

    @property
    def settings(self) -> ProvisionerSettings:
        """What we were told."""
        return self.tools.settings

    @property
    def now(self) -> datetime:
        """The current moment."""
        return self.request.clock.now()

    @property
    def nodepool(self) -> str:
        """Label of Karpenter's metrics."""
        return nodepool(self.claim)

    def wake(self, after: float, why: str) -> None:
        """Look again after so many seconds, or earlier."""
        self.wakes.append((max(after, 0.0), why))

    def outcome(self) -> Again | None:
        """The earliest wish to look again."""
        if not self.wakes:
            return None
        after, why = min(self.wakes)
        return Again(after=after, why=why)

    def age(self, moment: datetime | None) -> float:
        """Seconds since a moment; 0 for one that is not known."""
        return (self.now - moment).total_seconds() if moment is not None else 0.0

    async def set_metadata(
        self, *, annotations: Mapping[str, str | None] | None = None, add_labels: Mapping[str, str] | None = None
    ) -> None:
        """Change annotations (None removes one) and add labels of the claim; no request when nothing differs."""
        changes: dict[str, dict[str, str | None]] = {}
        for name, wanted in (annotations or {}).items():
            if self.claim.annotations.get(name) != wanted:
                changes.setdefault("annotations", {})[name] = wanted
        for name, value in (add_labels or {}).items():
            if self.claim.labels.get(name) != value:
                changes.setdefault("labels", {})[name] = value
        if changes:
            self.claim = await self.api.patch(self.claim, MergePatch({"metadata": dict(changes)}))
            self.report.claim = self.claim

    def event(self, reason: str, note: str, *, warning: bool = False) -> None:
        """Record an event about the claim."""
        self.request.event("Warning" if warning else "Normal", reason, note)


def nodepool(claim: Claim) -> str:
    """The pool a claim says it belongs to, in either generation's label."""
    return claim.labels.get(labels.NODEPOOL) or claim.labels.get(labels.PROVISIONER_NAME) or ""


def moment(text: str) -> datetime | None:
    """A time written on an object, where anybody may have edited it: garbage is no time."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None
