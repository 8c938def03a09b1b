"""The manager's HTTP servers for probes and metrics."""

import platform
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, final

from aiohttp import web

from kaito.runtime.errors import ConfigurationError
from kaito.runtime.health import Checks
from kaito.runtime.logging import get_logger
from kaito.runtime.manager.http.routes import Debugging, Routes, health_app, metrics_app
from kaito.runtime.manager.settings import Settings, parse_bind_address
from kaito.runtime.metrics import Metrics

if TYPE_CHECKING:
    from kaito.runtime.certs import ServingContext
    from kaito.runtime.client import Client
    from kaito.runtime.workqueue.backoff import Jitter

IDLE_SECONDS = 90.0
"""An idle connection is closed after this long, as controller-runtime's servers do."""

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
        self._runners: list[web.AppRunner] = []
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
        probes = routes.install(health_app(*health), "health")
        self.health_port = await self._serve("health", settings.health_probe_bind_address, probes)
        middlewares: list[Any] = []
        context: ssl.SSLContext | None = None
        if settings.metrics_secure:
            from kaito.runtime.manager.http.metrics_auth import MetricsAuthorizer

            middlewares = [MetricsAuthorizer(client, jitter).middleware()]
            context = self._metrics_context(metrics)
        app = metrics_app(metrics, debug=debug if settings.debug_endpoints else None, middlewares=middlewares)
        routes.install(app, "metrics")
        self.metrics_port = await self._serve("metrics", settings.metrics_bind_address, app, context)

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
        self, name: str, address: str, app: web.Application, context: ssl.SSLContext | None = None
    ) -> int | None:
        bind = parse_bind_address(address)
        if bind is None:
            return None
        host, port = bind
        runner = web.AppRunner(
            app,
            access_log=None,
            keepalive_timeout=IDLE_SECONDS,
            shutdown_timeout=CLOSE_SECONDS,
            auto_decompress=False,  # signatures are of the bytes that were sent; a small body stays small
        )
        await runner.setup()
        self._runners.append(runner)
        try:
            await web.TCPSite(runner, host, port, ssl_context=context).start()
        except OSError as error:
            message = f"cannot serve {name} on {address}: {error}"
            raise ConfigurationError(message) from error
        bound: int = runner.addresses[0][1]
        _log.info("serving", server=name, address=address, port=bound)
        return bound

    async def stop(self) -> None:
        """Closes all servers."""
        while self._runners:
            await self._runners.pop().cleanup()
