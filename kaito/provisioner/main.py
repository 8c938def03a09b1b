"""The gpu-provisioner process: flags in, a manager with the provisioner's controllers out.

`pyproject.toml` makes it the console script `gpu-provisioner`; `cmd/gpu-provisioner` is the same for running by path.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from typing import final

from kaito.api.karpenter import Claim
from kaito.cloud.azure.sdk import REMEDY, is_sdk_installed
from kaito.cloud.metrics import CloudMetrics
from kaito.cloud.provider import Provider
from kaito.provisioner.context import Tools
from kaito.provisioner.controllers import cached, controllers
from kaito.provisioner.flags import Invocation, parse
from kaito.provisioner.installation import Installation
from kaito.provisioner.kinds import served_kinds
from kaito.provisioner.nodes import is_managed
from kaito.runtime import Manager
from kaito.runtime.logging import configure, get_logger

NAME = "gpu-provisioner"
"""Of the lease, the field manager and the logs."""

_log = get_logger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Run until a signal.

    Raises:
        SystemExit: always; 2 after a wrong flag, 1 after a failure.
    """
    invocation = parse(sys.argv[1:] if argv is None else argv, os.environ)
    if not is_sdk_installed():
        sys.exit(f"{NAME}: {REMEDY}")
    configure(invocation.manager.log_format, invocation.manager.log_level)
    for note in invocation.notes:
        _log.warning("a setting has no effect", setting=note)
    kinds = asyncio.run(served_kinds(invocation.node_api, invocation.manager))
    manager_for(invocation, kinds).run()


def manager_for(invocation: Invocation, kinds: Sequence[type[Claim]]) -> Manager:
    """The manager, not yet running."""
    from kaito.cloud.azure.provider import AzureProvider  # the SDK takes over a second to import, and is an extra

    cloud_metrics = CloudMetrics()

    def fence() -> None:
        manager.fence()  # made below: its controllers need the cloud

    cloud = AzureProvider(invocation.azure, cloud_metrics, fence=fence)
    settings = invocation.provisioner
    tools = Tools(cloud=cloud, settings=settings, kinds=kinds, installation=Installation(settings.installation))
    manager = Manager(
        invocation.manager,
        controllers=controllers(tools),
        cache=cached(),
        runnables=[CloudConnection(cloud)],
        lease=NAME,
    )
    cloud_metrics.register(manager.metrics.registry)
    tools.metrics.register(manager.metrics.registry, lambda: _known_claims(manager, kinds))
    return manager


def _known_claims(manager: Manager, kinds: Sequence[type[Claim]]) -> list[Claim]:
    """What the cache holds, for the gauge; only the leader speaks, or every replica would be counted."""
    if not manager.is_leader:
        return []
    return [claim for kind in kinds for claim in manager.cache.list(kind) if is_managed(claim)]


@final
class CloudConnection:
    """Closes the connections to the cloud when the manager stops."""

    name = "cloud-connection"
    leader_elected = False

    def __init__(self, cloud: Provider) -> None:
        self._cloud = cloud

    async def run(self) -> None:
        """Wait for the end."""
        try:
            await asyncio.Event().wait()
        finally:
            await self._cloud.close()


if __name__ == "__main__":
    main()
