"""`Console`: assembles the parts and listens."""

import contextlib
from collections.abc import AsyncGenerator
from typing import Final, final

from aiohttp import web

from kaito.console.api.session import SessionRoutes
from kaito.console.api.workspaces import WorkspaceRoutes
from kaito.console.cluster.watch import ClusterWatch
from kaito.console.security.link import LinkAccess, Owner
from kaito.console.security.origin import OriginCheck, accepted_hosts
from kaito.console.server import ConsoleServer
from kaito.console.settings import ConsoleSettings
from kaito.runtime.client import Client, Transport
from kaito.runtime.clock import Clock, SystemClock
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.tasks import TaskScope

FIELD_MANAGER: Final = "kaito-console"
"""Field manager of the Workspaces that are created in the console."""

CLOSE_SECONDS: Final = 1.0
"""Time for open requests at the stop; streams end with it."""


@final
class Console:
    """A running console."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self.port = port
        self._host = f"[{host}]" if ":" in host else host
        self._token = token

    @property
    def url(self) -> str:
        """The address without the token."""
        return f"http://{self._host}:{self.port}/"

    @property
    def link(self) -> str:
        """The link that signs a browser in; empty token in a cluster."""
        return f"{self.url}?token={self._token}" if self._token else self.url


@contextlib.asynccontextmanager
async def running_console(
    settings: ConsoleSettings, transport: Transport, *, clock: Clock | None = None, user: str = ""
) -> AsyncGenerator[Console]:
    """Serves a console for the length of the body.

    Args:
        settings: settings.
        transport: the network to the API server; it is not closed.
        clock: the current time.
        user: name of the owner of the kubeconfig.

    Raises:
        ConfigurationError: the address is in use or does not exist.
    """
    watch = ClusterWatch(transport, clock or SystemClock(), namespaces=settings.namespaces)
    owner = Owner(user, Client(transport, field_manager=FIELD_MANAGER), settings.allow_writes)
    access = LinkAccess(owner)
    groups = [SessionRoutes(watch, settings), WorkspaceRoutes(watch)]
    origins = OriginCheck()
    runner = web.AppRunner(
        ConsoleServer(groups, access, origins).application(),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=CLOSE_SECONDS,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.address, settings.port)
        try:
            await site.start()
        except OSError as error:
            message = (
                f"the console cannot listen on {settings.address}:{settings.port}: choose another --port ({error})"
            )
            raise ConfigurationError(message) from error
        port = int(runner.addresses[0][1])
        access.port = port
        origins.accept(accepted_hosts(settings, port))
        async with TaskScope("console") as scope:
            scope.spawn(watch.run(), name="watch")
            yield Console(settings.address, port, access.token)
    finally:
        await runner.cleanup()
