"""The simulated cloud of a soak test: served over HTTP, and scripted by the failures of the simulation."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, final

from kaito.cloud.azure.simulator import Simulator, SimulatorSettings
from kaito.cloud.azure.simulator.server import serve
from kaito.runtime.client import Client
from kaito.runtime.testing.simulate.counts import HourlyCounts

SPEED: Final = 60.0
"""Seconds of the cloud in a second: a small agent pool is created in 4 s."""

HEARTBEAT_SECONDS: Final = 10.0
"""Interval of the heartbeats of nodes. kube-controller-manager waits 50 s for them."""

CREATIONS_PER_HOUR: Final = 40
"""Requests to create one agent pool in an hour, with pauses after each refusal."""


@final
class LiveCloud:
    """Agent pools, and the failures of their nodes.

    Args:
        client: reports the nodes.
        seed: decides the IDs of instances.
        fail: called with invariant and text of a violation.
    """

    def __init__(self, client: Client, seed: int, fail: Callable[[str, str], None]) -> None:
        self.simulator = Simulator(SimulatorSettings(speed=SPEED), nodes=client, seed=seed)
        self._fail = fail
        self._creations = HourlyCounts(CREATIONS_PER_HOUR, self._note_loop, asyncio.get_running_loop().time)
        self.simulator.cluster.add_listener(self._on_pool_event)
        self.simulator.knobs.set(heartbeat_seconds=HEARTBEAT_SECONDS)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[str]:
        """Serves the cloud; yields its URL."""
        async with self.simulator, serve(self.simulator) as url:
            yield url

    def _on_pool_event(self, event: str, pool: Any) -> None:
        if event == "creating":
            self._creations.add((pool.name,))

    def _note_loop(self, key: tuple[str, ...]) -> None:
        text = f"agent pool {key[0]} was created more than {CREATIONS_PER_HOUR} times in an hour"
        self._fail("no buying in a loop", text)
