"""Entry point of the workspace controller: `workspace-controller`, or `python cmd/workspace-controller`.

The only module of the package that reads the command line and the environment.
"""

import os
import random
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any

from kaito.api import Workspace, labels
from kaito.prices.book import PriceBook
from kaito.runtime.cache import Derived
from kaito.runtime.client import Transport
from kaito.runtime.clock import Clock
from kaito.runtime.cluster_clock import ClusterClock
from kaito.runtime.controller import AnyController
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.logging import configure, get_logger
from kaito.runtime.manager import Manager, Settings
from kaito.runtime.tracing import NO_TRACER, Tracer, configured_tracer
from kaito.runtime.webhook import Webhook
from kaito.workspace.activity import ActivityMonitor
from kaito.workspace.admission import workspace_webhook
from kaito.workspace.controller import WorkspaceReconciler, cached_kinds, live_kinds, workspace_controller
from kaito.workspace.figures import WorkspaceFigures
from kaito.workspace.flags import parse
from kaito.workspace.hub.reads import ReadModel
from kaito.workspace.in_use_policy import POLICY_KINDS, installation_guard
from kaito.workspace.inference_sets.admission import inference_set_webhook
from kaito.workspace.inference_sets.controller import InferenceSetReconciler, inference_set_controller
from kaito.workspace.inference_sets.loads import CopyLoads
from kaito.workspace.manifests.claim import claim_kind
from kaito.workspace.metrics import WorkspaceMetrics
from kaito.workspace.orphans import orphan_collector
from kaito.workspace.pod_polls import Fetch
from kaito.workspace.scaling.controller import Autoscaler, inference_set_autoscaler, workspace_autoscaler
from kaito.workspace.scaling.monitor import LoadMonitor
from kaito.workspace.settings import WorkspaceSettings

NAME = "workspace-controller"
"""Name of the process: of its Service, of its certificate's Secret (`workspace-controller-webhook-cert`), and the
reporter of its events."""

FIELD_MANAGER = "kaito-workspace-controller"
"""Field manager of all applied fields. Must not change: fields of the old manager would never be removed."""

LEASE = "workspace-controller.kaito.sh"
"""Name of the lease. Must not change: during a rolling upgrade, the leader of the previous version would hold another
lease than the new one, and both would act."""

_log = get_logger(__name__)


def workspace_manager(
    workspace: WorkspaceSettings,
    settings: Settings,
    *,
    webhook: bool = False,
    mirrors_count: bool | None = None,
    prices: PriceBook | None = None,
    transport: Transport | None = None,
    clock: Clock | None = None,
    read_model: ReadModel | None = None,
    activity: ActivityMonitor | None = None,
    fetch_load: Fetch | None = None,
    rng: random.Random | None = None,
    tracer: Tracer = NO_TRACER,
) -> Manager:
    """Returns the manager with all controllers, ready to start.

    Tests and simulations pass the last seven arguments, and `mirrors_count` if another process serves admission.
    """
    metrics = WorkspaceMetrics()
    manager_clock = ClusterClock(clock)
    mirrors = webhook if mirrors_count is None else mirrors_count
    reconciler = WorkspaceReconciler(
        workspace,
        metrics,
        read_model=read_model,
        activity=activity or ActivityMonitor(clock=manager_clock),
        mirrors_count=mirrors,
        prices=prices,
        tracer=tracer,
    )
    kind = claim_kind(workspace.node_api)
    periodic = [] if kind is None else [orphan_collector(kind, workspace, reconciler.prices, metrics)]
    guards = [installation_guard(workspace)] if workspace.installation_guard else []
    webhooks: list[Webhook[Any]] = []
    if webhook:
        webhooks = [workspace_webhook(workspace, prices), inference_set_webhook(workspace, prices)]
    loads = CopyLoads(fetch_load, manager_clock)
    sets = inference_set_controller(InferenceSetReconciler(workspace, loads))
    autoscalers: list[AnyController] = [
        workspace_autoscaler(Autoscaler(LoadMonitor(fetch_load, manager_clock))),
        inference_set_autoscaler(Autoscaler(LoadMonitor(fetch_load, manager_clock))),
    ]
    manager = Manager(
        settings,
        controllers=[workspace_controller(reconciler), sets, *autoscalers, *periodic, *guards],
        cache=cached_kinds(workspace),
        live=[*live_kinds(workspace), *POLICY_KINDS],
        lease=LEASE,
        webhooks=webhooks,
        transport=transport,
        clock=manager_clock,
        field_manager=FIELD_MANAGER,
        name=NAME,
        rng=rng,
        tracer=tracer,
    )
    figures = Derived(Workspace, WorkspaceFigures.of)

    def of_leader() -> Iterable[WorkspaceFigures] | None:
        return figures.values(manager.cache) if manager.is_leader else None  # other replicas export no gauges

    metrics.register(manager.metrics.registry, of_leader, manager_clock.now)
    return manager


def main(argv: Sequence[str] | None = None) -> None:
    """Runs until SIGTERM or SIGINT. Exits with status 2 on wrong flags, and 1 on failure or a lost lease."""
    invocation = parse(sys.argv[1:] if argv is None else argv, os.environ)
    configure(invocation.manager.log_format, invocation.manager.log_level)
    for note in invocation.notes:
        _log.warning("setting has no effect", setting=note)
    prices = PriceBook(own=invocation.prices)
    endpoint = invocation.manager.tracing_endpoint
    try:
        with configured_tracer(
            NAME, endpoint, os.environ, annotation=labels.TRACEPARENT, version=version("kaito")
        ) as tracer:
            workspace_manager(
                invocation.workspace, invocation.manager, webhook=invocation.webhook, prices=prices, tracer=tracer
            ).run()
    except ConfigurationError as error:
        _log.error("stopped by a failure", error=f"{type(error).__name__}: {error}")
        sys.exit(1)
