"""Probes: the periodic checks a kubelet makes of a container (Kubernetes documentation, "Probes").

`watch_probe` calls back on every change of the result; thresholds, periods and the initial delay are those of the
probe.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import aiohttp

from kaito.runtime.kinds import Container, Probe

DEFAULT_PERIOD_SECONDS = 10
DEFAULT_TIMEOUT_SECONDS = 1
DEFAULT_FAILURE_THRESHOLD = 3

RunCommand = Callable[[list[str]], Awaitable[int]]
"""Runs a command beside the container and returns its exit code."""


class Prober:
    """Checks one container at its pod's address."""

    def __init__(self, container: Container, ip: str, run: RunCommand) -> None:
        self._ip = ip
        self._run = run
        self._ports: Mapping[str, int] = {port.name: port.container_port for port in container.ports if port.name}

    async def check(self, probe: Probe) -> str | None:
        """None when the check passed, else what went wrong."""
        try:
            async with asyncio.timeout(probe.timeout_seconds or DEFAULT_TIMEOUT_SECONDS):
                if probe.http_get is not None:
                    return await self._http(probe)
                if probe.exec is not None:
                    code = await self._run(probe.exec.command)
                    return None if code == 0 else f"command exited with {code}"
                if probe.tcp_socket is not None:
                    _, writer = await asyncio.open_connection(self._ip, self._port(probe.tcp_socket.port))
                    writer.close()
        except TimeoutError:
            return "timed out"
        except (OSError, aiohttp.ClientError) as error:
            return str(error) or type(error).__name__
        return None

    async def _http(self, probe: Probe) -> str | None:
        action = probe.http_get
        assert action is not None  # noqa: S101  # the caller looked
        url = f"{(action.scheme or 'HTTP').lower()}://{action.host or self._ip}:{self._port(action.port)}"
        headers = {header.name: header.value for header in action.http_headers}
        async with (
            aiohttp.ClientSession() as session,
            session.get(url + (action.path or "/"), headers=headers, ssl=False, allow_redirects=False) as answer,
        ):
            return None if 200 <= answer.status < 400 else f"HTTP probe failed with statuscode: {answer.status}"

    def _port(self, port: int | str) -> int:
        return self._ports[port] if isinstance(port, str) and port in self._ports else int(port)


async def watch_probe(prober: Prober, probe: Probe, on_threshold: Callable[[bool, str], bool]) -> None:
    """Probes until `on_threshold(passed, detail)`, which is called when a threshold is reached, returns False."""
    await asyncio.sleep(probe.initial_delay_seconds or 0)
    successes = failures = 0
    while True:
        problem = await prober.check(probe)
        successes, failures = (successes + 1, 0) if problem is None else (0, failures + 1)
        passed = successes >= (probe.success_threshold or 1)
        failed = failures >= (probe.failure_threshold or DEFAULT_FAILURE_THRESHOLD)
        if (passed or failed) and not on_threshold(passed, problem or ""):
            return
        await asyncio.sleep(probe.period_seconds or DEFAULT_PERIOD_SECONDS)
