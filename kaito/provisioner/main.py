"""Entry point of the gpu-provisioner: parses flags and runs a manager with the provisioner's controllers.

The console script `gpu-provisioner` and `cmd/gpu-provisioner` call `main`.
"""

import asyncio
import os
import random
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from itertools import chain
from typing import Any, final

from kaito.api import labels
from kaito.api.karpenter import Claim
from kaito.cloud.azure.sdk import INSTALL_HINT, is_sdk_installed
from kaito.cloud.metrics import CloudMetrics
from kaito.cloud.provider import CloudProvider
from kaito.provisioner.context import Dependencies
from kaito.provisioner.controllers import cached, controllers
from kaito.provisioner.flags import Invocation, parse
from kaito.provisioner.installation import Installation
from kaito.provisioner.kinds import served_kinds
from kaito.provisioner.metrics import managed_phase
from kaito.runtime import Manager
from kaito.runtime.cache import Derived
from kaito.runtime.client import Transport
from kaito.runtime.clock import Clock
from kaito.runtime.errors import KaitoRuntimeError
from kaito.runtime.logging import configure, get_logger
from kaito.runtime.tracing import NO_TRACER, Tracer, configured_tracer

NAME = "gpu-provisioner"
"""Name of the lease, the field manager and the log entries. Must not change: during a rolling upgrade, the leader of
the previous version would hold another lease than the new one, and both would act."""

_log = get_logger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the provisioner until SIGINT or SIGTERM.

    Raises:
        SystemExit: always; 2 after an invalid flag, 1 after a failure.
    """
    invocation = parse(sys.argv[1:] if argv is None else argv, os.environ)
    if not is_sdk_installed():
        sys.exit(f"{NAME}: {INSTALL_HINT}")
    configure(invocation.manager.log_format, invocation.manager.log_level)
    for note in invocation.notes:
        _log.warning("setting has no effect", setting=note)
    endpoint = invocation.manager.tracing_endpoint
    try:
        kinds = asyncio.run(served_kinds(invocation.node_api, invocation.manager))
        with configured_tracer(
            NAME, endpoint, os.environ, annotation=labels.TRACEPARENT, version=version("kaito")
        ) as tracer:
            manager_for(invocation, kinds, tracer=tracer).run()
    except KaitoRuntimeError as error:
        _log.error("stopped by a failure", error=f"{type(error).__name__}: {error}")
        sys.exit(1)


def manager_for(
    invocation: Invocation,
    kinds: Sequence[type[Claim]],
    *,
    transport: Transport | None = None,
    arm_transport: Any = None,
    clock: Clock | None = None,
    rng: random.Random | None = None,
    tracer: Tracer = NO_TRACER,
) -> Manager:
    """Builds the manager without starting it. Simulations pass the keyword arguments; `arm_transport` is the SDK's."""
    from kaito.cloud.azure.provider import AzureProvider  # importing the SDK takes over 1 s; it is an extra

    cloud_metrics = CloudMetrics()

    def fence() -> None:
        manager.fence()  # assigned below: the controllers of the manager need the cloud provider

    cloud = AzureProvider(invocation.azure, cloud_metrics, transport=arm_transport, fence=fence, tracer=tracer)
    settings = invocation.provisioner
    installation = Installation(settings.installation_id)
    deps = Dependencies(cloud=cloud, settings=settings, kinds=kinds, installation=installation, tracer=tracer)
    manager = Manager(
        invocation.manager,
        controllers=controllers(deps),
        cache=cached(),
        runnables=[CloudConnection(cloud)],
        lease=NAME,
        transport=transport,
        clock=clock,
        rng=rng,
        tracer=tracer,
    )
    cloud_metrics.register(manager.metrics.registry)
    phases = [Derived(kind, managed_phase) for kind in kinds]

    def of_leader() -> Iterable[str] | None:
        if not manager.is_leader:  # so that claims are counted once
            return None
        return chain.from_iterable(each.values(manager.cache) for each in phases)

    deps.metrics.register(manager.metrics.registry, of_leader)
    return manager


@final
class CloudConnection:
    """Runnable that closes the cloud provider when the manager stops."""

    name = "cloud-connection"
    leader_elected = False

    def __init__(self, cloud: CloudProvider) -> None:
        self._cloud = cloud

    async def run(self) -> None:
        """Waits until cancelled, then closes the connections."""
        try:
            await asyncio.Event().wait()
        finally:
            await self._cloud.close()


if __name__ == "__main__":
    main()
