"""The workspace controller as a process: `workspace-controller`, also `python cmd/workspace-controller`.

The only place of the room that reads the command line and the environment.
"""

import os
import sys
from collections.abc import Iterable, Sequence

from kaito.api import Workspace
from kaito.runtime.client import Transport
from kaito.runtime.clock import Clock, SystemClock
from kaito.runtime.logging import configure, get_logger
from kaito.runtime.manager import Manager, Settings
from kaito.workspace import in_use_policy as guard
from kaito.workspace.admission import workspace_webhook
from kaito.workspace.controller import WorkspaceReconciler, cached_kinds, live_kinds, workspace_controller
from kaito.workspace.flags import parse
from kaito.workspace.in_use_policy import installation_guard
from kaito.workspace.manifests.claim import claim_kind
from kaito.workspace.metrics import WorkspaceMetrics
from kaito.workspace.orphans import orphan_collector
from kaito.workspace.settings import WorkspaceSettings

NAME = "workspace-controller"
"""Of the process: its Service, its certificate's Secret (`workspace-controller-webhook-cert`), reporter of events."""

FIELD_MANAGER = "kaito-workspace-controller"
"""Owner of every field applied. Never change it: fields of the old owner would stay behind."""

LEASE = "workspace-controller.kaito.sh"

_log = get_logger(__name__)


def workspace_manager(
    workspace: WorkspaceSettings,
    settings: Settings,
    *,
    webhook: bool = False,
    transport: Transport | None = None,
    clock: Clock | None = None,
) -> Manager:
    """The whole controller, ready to start; tests plug in a transport and a clock."""
    metrics = WorkspaceMetrics()
    reconciler = WorkspaceReconciler(workspace, metrics)
    kind = claim_kind(workspace.node_api)
    periodic = [] if kind is None else [orphan_collector(kind)]
    guards = [installation_guard(workspace)] if workspace.installation_guard else []
    manager = Manager(
        settings,
        controllers=[workspace_controller(reconciler), *periodic, *guards],
        cache=cached_kinds(workspace),
        live=[*live_kinds(workspace), *guard.KINDS],
        lease=LEASE,
        webhooks=[workspace_webhook(workspace)] if webhook else (),
        transport=transport,
        clock=clock or SystemClock(),
        field_manager=FIELD_MANAGER,
        name=NAME,
    )
    metrics.register(manager.metrics.registry, lambda: _known_workspaces(manager))
    return manager


def _known_workspaces(manager: Manager) -> Iterable[Workspace]:
    """What the cache holds, for the gauges; only the leader speaks, or every replica would be counted."""
    return manager.cache.list(Workspace) if manager.is_leader else ()


def main(argv: Sequence[str] | None = None) -> None:
    """Run until told to stop. Exits with 2 on wrong flags, 1 on failure or a lost lease."""
    invocation = parse(sys.argv[1:] if argv is None else argv, os.environ)
    configure(invocation.manager.log_format, invocation.manager.log_level)
    for note in invocation.notes:
        _log.warning("a setting has no effect", setting=note)
    workspace_manager(invocation.workspace, invocation.manager, webhook=invocation.webhook).run()
