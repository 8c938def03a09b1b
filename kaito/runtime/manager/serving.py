"""The manager's HTTP servers for probes and metrics: bound at start, closed at the end."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, final

from aiohttp import web

from kaito.runtime.errors import ConfigurationError
from kaito.runtime.health import Checks
from kaito.runtime.logging import get_logger
from kaito.runtime.manager.endpoints import health_app, metrics_app
from kaito.runtime.manager.settings import Settings, parse_bind_address
from kaito.runtime.metrics import Metrics
from kaito.runtime.workqueue import WorkQueue

IDLE_SECONDS = 90.0
"""An idle connection is closed after this long, as controller-runtime's servers do."""

CLOSE_SECONDS = 1.0
"""Open requests get this long at the end; probes and scrapes are short."""

_log = get_logger(__name__)


@final
class Endpoints:
    """The servers of one manager."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._runners: list[web.AppRunner] = []
        self.health_port: int | None = None
        """The port probes are answered on, once started; None when off."""
        self.metrics_port: int | None = None
        """The port of the metrics, once started; None when off."""

    async def start(
        self,
        *,
        health: Sequence[Checks],
        metrics: Metrics,
        queues: Callable[[], Iterable[WorkQueue[Any]]],
        cache: Callable[[], Sequence[Any]],
    ) -> None:
        """Listen on every address that is not off.

        Raises:
            ConfigurationError: an address is in use or not ours.
        """
        self.health_port = await self._serve("health", self._settings.health_probe_bind_address, health_app(*health))
        self.metrics_port = await self._serve(
            "metrics", self._settings.metrics_bind_address, metrics_app(metrics, queues=queues, cache=cache)
        )

    async def _serve(self, what: str, address: str, app: web.Application) -> int | None:
        bind = parse_bind_address(address)
        if bind is None:
            return None
        host, port = bind
        runner = web.AppRunner(app, access_log=None, keepalive_timeout=IDLE_SECONDS, shutdown_timeout=CLOSE_SECONDS)
        await runner.setup()
        self._runners.append(runner)
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            message = f"cannot serve {what} on {address}: {error}"
            raise ConfigurationError(message) from error
        port = runner.addresses[0][1]
        _log.info("serving", what=what, address=address, port=port)
        return port

    async def stop(self) -> None:
        """Close everything."""
        while self._runners:
            await self._runners.pop().cleanup()
