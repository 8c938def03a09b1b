"""Entry point of the activator: `workspace-activator`, or `python cmd/workspace-activator`.

The only module of the package that reads the command line. Every replica works; there is no leader.
"""

import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from kaito.runtime.client import Transport
from kaito.runtime.clock import Clock
from kaito.runtime.cluster_clock import ClusterClock
from kaito.runtime.controller import Controller
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.flags import MANAGER_FIELDS, MANAGER_FLAG_NAMES, FlagParser
from kaito.runtime.kinds import EndpointSlice
from kaito.runtime.logging import configure
from kaito.runtime.manager import Manager, Runnable, Settings
from kaito.runtime.meta import ObjectKey
from kaito.workspace.activator.gate import HoldLimits
from kaito.workspace.activator.listeners import (
    SWEEP_SECONDS,
    ActivatorServer,
    Listeners,
    cached_kinds,
    listener_controller,
)
from kaito.workspace.activator.metrics import ActivatorMetrics
from kaito.workspace.activator.proxy import ActivatorProxy
from kaito.workspace.activator.workspaces import HeldWorkspaces
from kaito.workspace.keda.loads import LoadReader
from kaito.workspace.manifests.service import SERVER_PORT
from kaito.workspace.pod_polls import Fetch

NAME: Final = "workspace-activator"

_MEBIBYTE: Final = 2**20

_STOP_SECONDS: Final = 30.0
"""Part of the graceful period for everything but held requests."""

_ELECTION_FIELDS: Final = frozenset({"leader_elect", "leader_election_namespace"})


class ActivatorSettings(BaseModel):
    """Settings of the activator."""

    model_config = ConfigDict(frozen=True)

    listen_address: str = ""
    """Address of the listeners; empty for all."""

    hold_requests: int = Field(default=1000, ge=1)
    """Requests that are held at a time, for all Workspaces. Further ones get 503."""

    hold_mebibytes: int = Field(default=256, ge=1)
    """Size of the bodies of held requests in MiB. Further requests get 503."""

    hold_seconds: float = Field(default=600.0, gt=0)
    """Time for which a request is held. After it the answer is 503. OpenAI's clients wait for 10 minutes by default."""

    max_request_mebibytes: int = Field(default=16, ge=1)
    """Largest body of a request in MiB; a larger one gets 413."""

    keda_port: int = Field(default=0, ge=0, le=65535)
    """Port on which KEDA's external-scaler protocol is served; 0 for none."""

    keda_cert_dir: Path | None = None
    """Directory with tls.crt and tls.key for that port, and optionally ca.crt, which then must have issued KEDA's
    certificate. Default: no TLS."""

    @property
    def limits(self) -> HoldLimits:
        """Limits of held requests."""
        return HoldLimits(
            requests=self.hold_requests, body_bytes=self.hold_mebibytes * _MEBIBYTE, seconds=self.hold_seconds
        )


def parser() -> FlagParser:
    """Returns the parser with every flag of the activator."""
    flags = FlagParser(
        prog=NAME,
        description="Holds requests to Kaito Workspaces without copies, and wakes the Workspaces. Answers KEDA.",
    )
    flags.add_argument("--version", action="version", version=f"{NAME} {version('kaito')}")
    fields = [field for field in MANAGER_FIELDS if field not in _ELECTION_FIELDS]
    flags.add_settings(Settings, fields=fields, names=MANAGER_FLAG_NAMES)
    flags.add_settings(ActivatorSettings)
    return flags


def activator_manager(
    settings: ActivatorSettings,
    manager: Settings,
    *,
    transport: Transport | None = None,
    clock: Clock | None = None,
    server_port: int = SERVER_PORT,
    fetch_load: Fetch | None = None,
) -> Manager:
    """Returns the manager of the activator, ready to start. Tests pass the last four arguments."""
    metrics, workspaces = ActivatorMetrics(), HeldWorkspaces()
    proxy = ActivatorProxy(
        workspaces,
        limits=settings.limits,
        metrics=metrics,
        max_request_bytes=settings.max_request_mebibytes * _MEBIBYTE,
        server_port=server_port,
    )
    manager_clock = ClusterClock(clock)
    server = ActivatorServer(proxy.application(), host=settings.listen_address, drain_seconds=settings.hold_seconds)
    listeners = Listeners(server, workspaces, metrics)
    found = Manager(
        manager.model_copy(
            update={"leader_elect": False, "graceful_shutdown_seconds": settings.hold_seconds + _STOP_SECONDS}
        ),
        controllers=[
            listener_controller(listeners),
            Controller.every(SWEEP_SECONDS, listeners.sweep, name="closed-listeners"),
        ],
        cache=cached_kinds(keda=settings.keda_port != 0),
        runnables=[server],
        transport=transport,
        clock=manager_clock,
        name=NAME,
    )
    if settings.keda_port:
        found.add(_keda_server(settings, found, workspaces, LoadReader(manager_clock, fetch_load)))
    found.readyz.add("listeners", lambda: listeners.problem(found.cache.list(EndpointSlice)))
    metrics.register(found.metrics.registry)
    return found


def _keda_server(
    settings: ActivatorSettings, manager: Manager, workspaces: HeldWorkspaces, loads: LoadReader
) -> Runnable:
    """Returns the server of KEDA's protocol.

    Raises:
        ConfigurationError: the packages of the extra `kaito[keda]` are not installed.
    """
    try:
        from kaito.workspace.keda.server import KedaServer, KedaService
    except ImportError as error:
        raise ConfigurationError(f"--keda-port needs the packages of kaito[keda]: {error}") from error
    from kaito.workspace.keda.scaler import KedaScaler

    def held(key: ObjectKey) -> int:
        known = workspaces.known.get(key)
        return known.gate.waiting if known is not None else 0

    scaler = KedaScaler(lambda: manager.api, loads, held)
    return KedaServer(
        KedaService(scaler),
        host=settings.listen_address,
        port=settings.keda_port,
        certificates=settings.keda_cert_dir,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs until SIGTERM or SIGINT, and then until no request is held or runs. Exits with status 2 on wrong flags."""
    flags = parser()
    args = flags.parse_args(sys.argv[1:] if argv is None else argv)
    manager = flags.manager_settings(args)
    settings = flags.settings(ActivatorSettings, args)
    configure(manager.log_format, manager.log_level)
    activator_manager(settings, manager).run()
