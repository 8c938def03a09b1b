"""Prometheus metrics of the workspace controller, in the same registry as the framework's.

The gauges are computed from the cache when Prometheus scrapes, without a request to the API server: from the figures of
each Workspace, which are derived once for each version of it. Only the leader exports them: a standby that exported
zeros would make every aggregation over replicas depend on the replica.
"""

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from kaito.prices.price import Price
from kaito.runtime.clock import SystemClock
from kaito.workspace.figures import WorkspaceFigures

PROVISION_BOUNDS_SECONDS = (10, 30, 60, 120, 180, 240, 300, 420, 600, 900, 1800, 3600)
"""Bucket bounds: a GPU node takes minutes, an exhausted quota takes hours."""


@final
class WorkspaceMetrics:
    """Counters and histograms that the steps update."""

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
        self.orphan_nodes = Gauge(
            "kaito_orphan_nodes",
            "Nodes of claims whose Workspace does not exist, at the last check (every 5 min).",
            registry=None,
        )
        self.orphan_cost_per_hour = Gauge(
            "kaito_orphan_cost_per_hour",
            "Cost per hour of the nodes of claims whose Workspace does not exist; nodes with a known price.",
            ("currency",),
            registry=None,
        )
        self.time_to_ready_seconds = Histogram(
            "kaito_workspace_time_to_ready_seconds",
            "From the creation of a Workspace to its first answer.",
            buckets=PROVISION_BOUNDS_SECONDS,
            registry=None,
        )

    def set_orphans(self, prices: Sequence[Price | None]) -> None:
        """Sets the gauges about orphaned claims: one price for each of their nodes, None if it is unknown."""
        self.orphan_nodes.set(len(prices))
        self.orphan_cost_per_hour.clear()
        for price in prices:
            if price is not None:
                self.orphan_cost_per_hour.labels(price.currency).inc(float(price.per_hour))

    def register(
        self,
        registry: CollectorRegistry,
        figures: Callable[[], Iterable[WorkspaceFigures] | None],
        now: Callable[[], datetime] = SystemClock().now,
    ) -> None:
        """Registers all metrics; `figures` is called at each scrape and returns None on a standby."""
        own = (self.claim_creates, self.claim_ready_seconds, self.time_to_ready_seconds)
        for collector in (*own, self.orphan_nodes, self.orphan_cost_per_hour):
            registry.register(collector)
        registry.register(WorkspaceCollector(figures))
        registry.register(CostCollector(figures, now))


@final
class WorkspaceCollector(Collector):
    """Gauges of the Workspaces that exist at the time of a scrape."""

    def __init__(self, figures: Callable[[], Iterable[WorkspaceFigures] | None]) -> None:
        self._figures = figures

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Returns the metrics without samples, so that registration does not read the cache."""
        return [_count(), _presets(), _phases(), _cache_tokens(), _peak_bytes()]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Returns the current gauges; none on a standby."""
        known = self._figures()
        if known is None:
            return
        workspaces = list(known)
        count, presets, phases = _count(), _presets(), _phases()
        cache, peak = _cache_tokens(), _peak_bytes()
        by_phase = Tally(each.phase for each in workspaces)
        for name in ("succeeded", "error", "pending", "deleting"):
            count.add_metric([name], by_phase[name])
        for preset, amount in sorted(Tally(each.preset for each in workspaces if each.preset).items()):
            presets.add_metric([preset], amount)
        for each in workspaces:
            phases.add_metric([each.namespace, each.name, each.phase], 1)
            for source, tokens in each.cache_tokens:
                cache.add_metric([each.namespace, each.name, source], tokens)
            for source, size in each.peak_bytes:
                peak.add_metric([each.namespace, each.name, source], size)
        yield from (count, presets, phases, cache, peak)


@final
class CostCollector(Collector):
    """Gauges of what the Workspaces cost at the time of a scrape, from `status.cost`.

    A Workspace whose price is unknown has no amounts, and is counted in `kaito_workspace_unpriced_nodes`.
    """

    def __init__(self, figures: Callable[[], Iterable[WorkspaceFigures] | None], now: Callable[[], datetime]) -> None:
        self._figures, self._now = figures, now

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Returns the metrics without samples, so that registration does not read the cache."""
        return _cost_families()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Returns the current gauges; none on a standby."""
        known = self._figures()
        if known is None:
            return
        per_hour, idle, total, unpriced = families = _cost_families()
        now = self._now()
        for each in known:
            cost = each.cost
            if cost is None:
                continue
            names = [each.namespace, each.name]
            unpriced.add_metric(names, cost.unpriced)
            if not cost.currency or cost.unpriced:
                continue
            per_hour.add_metric([*names, cost.currency], cost.per_hour)
            idle.add_metric([*names, cost.currency, cost.idle_reason], cost.idle_per_hour)
            until_now = cost.total_at(now)
            if until_now is not None:
                total.add_metric([*names, cost.currency], float(until_now))
        yield from families


def _cost_families() -> tuple[GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily]:
    names = ["namespace", "name"]
    return (
        GaugeMetricFamily(
            "kaito_workspace_cost_per_hour",
            "Cost per hour of the nodes that a Workspace has, Ready or not.",
            labels=[*names, "currency"],
        ),
        GaugeMetricFamily(
            "kaito_workspace_idle_cost_per_hour",
            "The part of the cost per hour of nodes that do nothing useful, by reason.",
            labels=[*names, "currency", "reason"],
        ),
        GaugeMetricFamily(
            "kaito_workspace_cost",
            "Cost of the nodes of a Workspace since its creation.",
            labels=[*names, "currency"],
        ),
        GaugeMetricFamily(
            "kaito_workspace_unpriced_nodes", "Nodes of a Workspace whose price is unknown.", labels=names
        ),
    )


def _count() -> GaugeMetricFamily:
    return GaugeMetricFamily("kaito_workspaces", "Workspaces by phase.", labels=["phase"])


def _presets() -> GaugeMetricFamily:
    return GaugeMetricFamily("kaito_preset_workspaces", "Inference Workspaces by preset.", labels=["preset_name"])


def _cache_tokens() -> GaugeMetricFamily:
    return GaugeMetricFamily(
        "kaito_workspace_kv_cache_tokens",
        "Tokens that fit into the key-value cache of a copy, by source: measured at its start, or planned.",
        labels=["namespace", "name", "source"],
    )


def _peak_bytes() -> GaugeMetricFamily:
    return GaugeMetricFamily(
        "kaito_workspace_gpu_peak_memory_bytes",
        "Memory of a GPU without the key-value cache, by source: measured at the start of the servers, or planned.",
        labels=["namespace", "name", "source"],
    )


def _phases() -> GaugeMetricFamily:
    return GaugeMetricFamily(
        "kaito_workspace_phase", "1 for the phase each Workspace is in.", labels=["namespace", "name", "phase"]
    )
