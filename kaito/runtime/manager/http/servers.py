"""The manager's HTTP servers for probes and metrics."""

import platform
import ssl
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, final

from kaito.runtime.errors import ConfigurationError
from kaito.runtime.health import Checks
from kaito.runtime.http_server import Guard, HttpServer, Pages
from kaito.runtime.logging import get_logger
from kaito.runtime.manager.http.pages import Debugging, health_pages, metrics_pages
from kaito.runtime.manager.http.routes import HttpHandler, Port, Routes
from kaito.runtime.manager.settings import Settings, parse_bind_address
from kaito.runtime.metrics import Metrics

if TYPE_CHECKING:
    from kaito.runtime.certs import ServingContext
    from kaito.runtime.client import Client
    from kaito.runtime.manager.http.aiohttp_server import AiohttpServer
    from kaito.runtime.workqueue.backoff import Jitter

CLOSE_SECONDS = 1.0
"""Time for open requests at the stop; probes and scrapes are short."""

_log = get_logger(__name__)


@final
class Endpoints:
    """The servers of one manager.

    Args:
        settings: addresses and certificates.
        routes: further paths on the same ports.
    """

    def __init__(self, settings: Settings, routes: Routes) -> None:
        self._settings = settings
        self._routes = routes
        self._servers: list[HttpServer | AiohttpServer] = []
        self.health_port: int | None = None
        """The port of the probes, once started; None when off."""
        self.metrics_port: int | None = None
        """The port of the metrics, once started; None when off."""
        self.metrics_serving: ServingContext | None = None
        """The certificate of the metrics port, if it is secured."""

    async def start(
        self,
        *,
        health: Sequence[Checks],
        metrics: Metrics,
        debug: Debugging,
        client: "Client",
        jitter: "Jitter",
    ) -> None:
        """Listens on every address that is not off. `client` authorizes the readers of a secured metrics port.

        Raises:
            ConfigurationError: an address is in use or does not exist.
        """
        settings, routes = self._settings, self._routes
        routes.seal()
        self.health_port = await self._serve("health", settings.health_probe_bind_address, health_pages(*health))
        guard: Guard | None = None
        context: ssl.SSLContext | None = None
        if settings.metrics_secure:
            from kaito.runtime.manager.http.metrics_auth import MetricsAuthorizer

            guard = MetricsAuthorizer(client, jitter).guard
            context = self._metrics_context(metrics)
        pages = metrics_pages(metrics, debug=debug if settings.debug_endpoints else None)
        self.metrics_port = await self._serve("metrics", settings.metrics_bind_address, pages, guard, context)

    def _metrics_context(self, metrics: Metrics) -> ssl.SSLContext:
        """TLS for the metrics port: from the given files, else self-signed, which readers cannot verify."""
        from kaito.runtime.certs import ServingContext
        from kaito.runtime.certs.authority import new_authority, new_leaf

        self.metrics_serving = serving = ServingContext(metrics)
        if self._settings.metrics_cert_dir is None:
            now = datetime.now(UTC)
            serving.load(new_leaf(new_authority("metrics", now), [platform.node() or "localhost", "127.0.0.1"], now))
        return serving.context

    async def _serve(
        self,
        name: Port,
        address: str,
        pages: Pages,
        guard: Guard | None = None,
        context: ssl.SSLContext | None = None,
    ) -> int | None:
        bind = parse_bind_address(address)
        if bind is None:
            return None
        server = self._server(pages, self._routes.of(name), guard)
        self._servers.append(server)
        try:
            bound = await server.start(*bind, context)
        except OSError as error:
            message = f"cannot serve {name} on {address}: {error}"
            raise ConfigurationError(message) from error
        _log.info("serving", server=name, address=address, port=bound)
        return bound

    def _server(
        self, pages: Pages, handlers: Mapping[str, HttpHandler], guard: Guard | None
    ) -> "HttpServer | AiohttpServer":
        if not handlers:
            return HttpServer(pages, guard, close_seconds=CLOSE_SECONDS)
        from kaito.runtime.manager.http.aiohttp_server import AiohttpServer  # imported only for paths of the program

        return AiohttpServer(pages, handlers, guard, CLOSE_SECONDS)

    async def stop(self) -> None:
        """Closes all servers."""
        while self._servers:
            await self._servers.pop().stop()
