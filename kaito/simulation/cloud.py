"""The simulated cloud of a run: the ARM simulator in the process, and each provisioner's connection to it.

A provisioner that has crashed receives no responses. Writes are checked against the lease, as those to the API server.
"""

import asyncio
import random
from typing import Any, Final, final

from kaito.cloud.azure.simulator import Simulator, SimulatorSettings
from kaito.cloud.azure.simulator.http import ArmRequest, ArmResponse
from kaito.cloud.azure.simulator.inprocess import InProcessTransport
from kaito.runtime.client import Client
from kaito.runtime.testing.objects import OWN_AGENT
from kaito.runtime.testing.simulate import Process, Run
from kaito.simulation.requests import CloudRequests
from kaito.simulation.tokens import Tokens

HEARTBEAT_SECONDS: Final = 24 * 3600.0
"""Nodes renew their leases rarely: no controller of Kaito reads these leases."""


@final
class SimulatedCloud:
    """Agent pools of one run, and the failures of its nodes."""

    def __init__(self, run: Run) -> None:
        client = Client(run.world.transport(agent=OWN_AGENT), field_manager="nodes", rng=random.Random(1))  # noqa: S311
        settings = SimulatorSettings(signed_operations=False)
        self.simulator = Simulator(settings, nodes=client, clock=run.world.clock, seed=run.scenario.seed)
        self._run = run
        self.requests = CloudRequests(run)
        self.tokens = Tokens(run)
        self.simulator.cluster.add_listener(self._on_pool_event)
        self.simulator.knobs.set(heartbeat_seconds=HEARTBEAT_SECONDS)

    async def work(self) -> None:
        """Runs the cloud until cancelled."""
        async with self.simulator:
            await asyncio.Event().wait()

    def _on_pool_event(self, event: str, pool: Any) -> None:
        self._run.trace.line("cloud", f"agent pool {pool.name}: {event}")
        self._run.changed()

    def transport(self, process: Process) -> InProcessTransport:
        """Returns the transport of the Azure SDK for one start of a process."""
        return InProcessTransport(_ArmConnection(self, self._run, process))


@final
class _ArmConnection:
    """The connection of one start of a process to the cloud."""

    def __init__(self, cloud: SimulatedCloud, run: Run, process: Process) -> None:
        self._api = cloud.simulator.api
        self._run = run
        self._process = process
        self._check_alive = process.liveness()
        self._cloud = cloud

    async def handle(self, request: ArmRequest) -> ArmResponse:
        """Serves a request; the connection drops if the process has crashed."""
        if not self._is_alive():
            return ArmResponse(drop=True)
        rejected = self._cloud.tokens.reject(self._process, request)
        if rejected is not None:
            self._run.trace.request(f"{self._process.name} (ARM)", request.method, request.path, None, 401)
            await asyncio.sleep(0)
            return rejected
        is_write = request.method != "GET"
        if is_write and not self._process.holds_lease():
            text = f"{self._process.name} sends {request.method} {request.path} to Azure and does not hold its lease"
            self._run.fail("no write without the lease", text)
        if is_write:
            simulation: Any = self._run.simulation
            pools = self._cloud.simulator.cluster.pools
            self._cloud.requests.before(self._process, request, simulation.reference, pools)
        response = await self._api.handle(request)
        if is_write:
            self._cloud.requests.after(self._process, request, response)
        outcome = "dropped" if response.drop else response.status
        self._run.trace.request(f"{self._process.name} (ARM)", request.method, request.path, request.body, outcome)
        if is_write:
            self._run.changed()
            self._process.count_write()
        else:
            self._process.count_step()
        await asyncio.sleep(0)
        return response if self._is_alive() else ArmResponse(drop=True)

    def _is_alive(self) -> bool:
        try:
            self._check_alive()
        except ConnectionError:
            return False
        return True
