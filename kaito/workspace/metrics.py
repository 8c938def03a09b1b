"""The workspace controller's own metrics, next to the framework's in the same registry.

Object counts are computed at a scrape from the cache, by the leader's process like any other: a scrape costs one walk
and no request. Phases come from `status.state`, so that a Workspace that is still starting is not counted as an error.
"""

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from typing import final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from kaito.api import Workspace

PROVISION_BOUNDS_SECONDS = (10, 30, 60, 120, 180, 240, 300, 420, 600, 900, 1800, 3600)
"""A GPU node takes minutes; quota trouble takes hours."""

_PHASES = {"Ready": "succeeded", "Succeeded": "succeeded", "Failed": "error", "NotReady": "error"}


def phase(workspace: Workspace) -> str:
    """`deleting`, `succeeded`, `error` or `pending`: upstream's four words."""
    if workspace.deleting:
        return "deleting"
    return _PHASES.get(workspace.status.state or "", "pending")


@final
class WorkspaceMetrics:
    """Counters and histograms that the steps feed."""

    def __init__(self) -> None:
        self.claim_creates = Counter(
            "kaito_nodeclaim_create", "Claims created, by kind and result.", ("kind", "result"), registry=None
        )
        self.claim_ready_seconds = Histogram(
            "kaito_nodeclaim_ready_seconds",
            "From the creation of a Workspace's claims to all of them being ready.",
            ("kind",),
            buckets=PROVISION_BOUNDS_SECONDS,
            registry=None,
        )
        self.time_to_ready_seconds = Histogram(
            "kaito_workspace_time_to_ready_seconds",
            "From the creation of a Workspace to its first answer.",
            buckets=PROVISION_BOUNDS_SECONDS,
            registry=None,
        )

    def register(self, registry: CollectorRegistry, workspaces: Callable[[], Iterable[Workspace]]) -> None:
        """Export everything; `workspaces` is asked at each scrape."""
        for collector in (self.claim_creates, self.claim_ready_seconds, self.time_to_ready_seconds):
            registry.register(collector)
        registry.register(WorkspaceCollector(workspaces))


@final
class WorkspaceCollector(Collector):
    """Gauges over the Workspaces that exist at the moment of the scrape."""

    def __init__(self, workspaces: Callable[[], Iterable[Workspace]]) -> None:
        self._workspaces = workspaces

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Names without a scrape, so that registering reads nothing."""
        return [_count(), _presets(), _phases()]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges as of now."""
        workspaces = list(self._workspaces())
        count, presets, phases = _count(), _presets(), _phases()
        by_phase = Tally(phase(workspace) for workspace in workspaces)
        for name in ("succeeded", "error", "pending", "deleting"):
            count.add_metric([name], by_phase[name])
        for preset, amount in sorted(Tally(w.preset_name for w in workspaces if w.inference and w.preset_name).items()):
            presets.add_metric([preset], amount)
        for workspace in workspaces:
            phases.add_metric([workspace.namespace, workspace.name, phase(workspace)], 1)
        yield from (count, presets, phases)


def _count() -> GaugeMetricFamily:
    return GaugeMetricFamily("kaito_workspace_count", "Workspaces by phase.", labels=["phase"])


def _presets() -> GaugeMetricFamily:
    return GaugeMetricFamily("kaito_workspace_preset_count", "Inference Workspaces by preset.", labels=["preset_name"])


def _phases() -> GaugeMetricFamily:
    return GaugeMetricFamily(
        "kaito_workspace_phase", "1 for the phase each Workspace is in.", labels=["namespace", "name", "phase"]
    )
