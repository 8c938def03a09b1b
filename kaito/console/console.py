"""`Console`: assembles the parts and listens."""

import contextlib
import logging
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Final, final

from aiohttp import web

from kaito.console.api.chats import ChatRoutes
from kaito.console.api.cluster import ClusterRoutes
from kaito.console.api.routing import Routes
from kaito.console.api.session import SessionRoutes
from kaito.console.api.workspaces import WorkspaceRoutes
from kaito.console.chat import ChatRelay
from kaito.console.drafts import Planner, no_network
from kaito.console.security.access import FIELD_MANAGER, Access
from kaito.console.security.cluster import ClusterAccess
from kaito.console.security.link import LinkAccess, Owner
from kaito.console.security.origin import WILDCARDS, OriginCheck, accepted_hosts
from kaito.console.server import ConsoleServer
from kaito.console.settings import LOOPBACK, ConsoleSettings
from kaito.console.trouble import Trouble
from kaito.console.watch import ClusterWatch, ReadQuota
from kaito.runtime.client import Client, ClusterConfig, HttpTransport
from kaito.runtime.clock import Clock, SystemClock
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.meta import ObjectKey
from kaito.runtime.tasks import TaskScope
from kaito.workspace.settings import WorkspaceSettings

MAX_HEADER_BYTES: Final = 32_768
"""Longest header: tokens with many groups are long."""

CLOSE_SECONDS: Final = 1.0
"""Time for open requests at the stop; streams end with it."""


@final
class Console:
    """A running console."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self.port = port
        name = LOOPBACK if host in WILDCARDS else host
        self._host = f"[{name}]" if ":" in name else name
        self._token = token

    @property
    def url(self) -> str:
        """The address without the token."""
        return f"http://{self._host}:{self.port}/"

    @property
    def link(self) -> str:
        """The link that signs a browser in; empty token in a cluster."""
        return f"{self.url}?token={self._token}" if self._token else self.url


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LocalParts:
    """What a cluster on one machine adds to the console."""

    trouble: Trouble | None = None
    direct_url: Callable[[ObjectKey], str | None] = lambda _: None
    """Returns the address at which this machine reaches a Service, if there is one."""
    controller: WorkspaceSettings | None = None
    """Settings of the controller, which has no Deployment."""
    read_quota: ReadQuota | None = None
    """Reads the quotas of the cloud; returns None if they are unknown."""


@contextlib.asynccontextmanager
async def running_console(
    settings: ConsoleSettings,
    transport: HttpTransport,
    *,
    clock: Clock | None = None,
    user: str = "",
    cluster: ClusterConfig | None = None,
    local: LocalParts | None = None,
    chat: ChatRelay | None = None,
) -> AsyncGenerator[Console]:
    """Serves a console for the length of the body.

    Args:
        settings: settings.
        transport: the network to the API server; it is not closed.
        clock: the current time.
        user: name of the owner of the kubeconfig.
        cluster: the API server, for users with bearer tokens; None for access by the link.
        local: what a cluster on one machine adds.
        chat: relays chats.

    Raises:
        ConfigurationError: the address is in use or does not exist.
    """
    parts = local or LocalParts()
    watch = ClusterWatch(
        transport,
        clock or SystemClock(),
        namespaces=settings.namespaces,
        controller=parts.controller,
        direct_url=parts.direct_url,
        is_in_cluster=settings.mode == "cluster",
        read_quota=parts.read_quota,
    )
    client = Client(transport, field_manager=FIELD_MANAGER)
    link: LinkAccess | None = None
    if cluster is not None:
        access: Access = ClusterAccess(cluster, client, writes=settings.allow_writes)
    else:
        access = link = LinkAccess(Owner(user, client, transport, settings.allow_writes))
    buttons = [button.to_json() for button in parts.trouble.buttons] if parts.trouble is not None else []
    groups: list[Routes] = [
        SessionRoutes(watch, settings, buttons),
        WorkspaceRoutes(watch),
        ChatRoutes(watch, chat or ChatRelay()),
        ClusterRoutes(watch, Planner(watch, no_network if settings.mode == "cluster" else None), parts.trouble),
    ]
    origins = OriginCheck()
    application = ConsoleServer(groups, access, origins).application()
    async with _listening(application, settings) as port:
        if link is not None:
            link.port = port
        origins.accept(accepted_hosts(settings, port))
        async with TaskScope("console") as scope:
            scope.spawn(watch.run(), name="watch")
            yield Console(settings.address, port, link.token if link is not None else "")


def _http_log() -> logging.Logger:
    """Returns a logger that drops everything: errors of the HTTP parser quote tokens and bodies of requests."""
    logger = logging.getLogger("kaito.console.http")
    logger.disabled = True
    return logger


@contextlib.asynccontextmanager
async def _listening(application: web.Application, settings: ConsoleSettings) -> AsyncGenerator[int]:
    """Listens for the length of the body; yields the port.

    Raises:
        ConfigurationError: the address is in use or does not exist.
    """
    runner = web.AppRunner(
        application,
        access_log=None,
        logger=_http_log(),
        handler_cancellation=True,
        max_field_size=MAX_HEADER_BYTES,
        shutdown_timeout=CLOSE_SECONDS,
    )
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, settings.address, settings.port).start()
        except OSError as error:
            where = f"{settings.address}:{settings.port}"
            message = f"the console cannot listen on {where}: choose another --port ({error})"
            raise ConfigurationError(message) from error
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
