"""Assembles the simulator: cluster state, faults, ARM API, and nodes.

    from kaito.cloud.azure.simulator.server import serve

    async with Simulator() as simulator, serve(simulator) as url:
        ...

Tests use it in Python; `python -m kaito.cloud.azure.simulator` runs it as a process.
"""

import random
from types import TracebackType
from typing import Any, Self

from kaito.cloud.azure.simulator.api import ArmApi
from kaito.cloud.azure.simulator.faults import FaultScript
from kaito.cloud.azure.simulator.knobs import KnobOverrides
from kaito.cloud.azure.simulator.nodes import NodeClient, NodeSimulator
from kaito.cloud.azure.simulator.pools import Cluster
from kaito.cloud.azure.simulator.settings import SimulatorSettings
from kaito.runtime.clock import Clock, SystemClock


class Simulator:
    """Simulates a subscription with one AKS cluster."""

    def __init__(
        self,
        settings: SimulatorSettings = SimulatorSettings(),
        *,
        nodes: NodeClient | None = None,
        clock: Clock = SystemClock(),
        seed: int | None = None,
    ) -> None:
        """`seed` makes IDs repeatable."""
        self.settings = settings
        self.cluster = Cluster(settings, clock=clock, rng=random.Random(seed))  # noqa: S311 - IDs, not secrets
        self.faults = FaultScript()
        self.api = ArmApi(self.cluster, self.faults)
        self.knobs = KnobOverrides()
        self._nodes = NodeSimulator(self.cluster, self.knobs, nodes, clock=clock) if nodes is not None else None

    async def __aenter__(self) -> Self:
        await self.cluster.__aenter__()
        if self._nodes is not None:
            await self._nodes.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._nodes is not None:
                await self._nodes.__aexit__(exc_type, exc, traceback)
        finally:
            await self.cluster.__aexit__(exc_type, exc, traceback)

    def reset(self) -> None:
        """Removes pools, operations, faults, quotas, capacities, knobs and the request log."""
        self.cluster.reset()
        self.cluster.quota.clear()
        self.cluster.capacity.clear()
        self.faults.clear()
        self.knobs.clear()
        self.api.requests.clear()
        self.api.limits.reset()

    def snapshot(self) -> dict[str, Any]:
        """The state as JSON, for the admin API and assertions."""
        return {
            "pools": [
                {
                    "name": pool.name,
                    "state": pool.state,
                    "vmSize": pool.size.name,
                    "count": pool.count,
                    "nodeLabels": pool.properties.get("nodeLabels") or {},
                    "tags": pool.properties.get("tags") or {},
                }
                for _, pool in sorted(self.cluster.pools.items())
            ],
            "operations": [
                {"id": operation.id, "pool": operation.pool, "kind": operation.kind, "status": operation.status}
                for operation in self.cluster.operations.values()
                if operation.status == "InProgress"
            ],
            "faults": [fault.model_dump(mode="json", exclude_defaults=True) for fault in self.faults.active()],
            "quota": {
                family: {"used": used, "limit": limit} for family, (used, limit) in self.cluster.usages().items()
            },
            "capacity": dict(self.cluster.capacity),
        }
