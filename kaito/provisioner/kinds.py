"""Which kinds of claims this process serves: those asked for, or those the cluster knows."""

import asyncio
from collections.abc import Sequence

from kaito.api.karpenter import Claim, Machine, NodeClaim
from kaito.provisioner.settings import NodeApi
from kaito.runtime import Client, Settings
from kaito.runtime.client import connect
from kaito.runtime.errors import KaitoRuntimeError, NotFound
from kaito.runtime.logging import get_logger

KINDS: Sequence[type[Claim]] = (Machine, NodeClaim)
RETRY_SECONDS = 2.0

log = get_logger(__name__)


async def served_kinds(node_api: NodeApi, settings: Settings) -> Sequence[type[Claim]]:
    """The kinds to serve; with `auto`, waits until the cluster knows at least one of them.

    Raises:
        ConfigurationError: there is no way to a cluster.
    """
    match node_api:
        case NodeApi.MACHINE:
            return (Machine,)
        case NodeApi.NODECLAIM:
            return (NodeClaim,)
        case NodeApi.BOTH:
            return KINDS
        case NodeApi.AUTO:
            return await _installed(settings)


async def _installed(settings: Settings) -> Sequence[type[Claim]]:
    async with connect(settings.kubeconfig, context=settings.context, field_manager="gpu-provisioner") as client:
        while True:
            try:
                found = [kind for kind in KINDS if await is_served(client, kind)]
            except KaitoRuntimeError as error:
                log.warning("cannot ask the cluster for its kinds, asking again", error=str(error))
                found = []
            if found:
                return found
            log.info("neither machines nor nodeclaims are installed, waiting")
            await asyncio.sleep(RETRY_SECONDS)


async def is_served(client: Client, kind: type[Claim]) -> bool:
    """Whether the cluster knows the kind, by its discovery document."""
    try:
        document = await client.raw("GET", f"/apis/{kind.api_version}")
    except NotFound:
        return False
    return any(resource.get("name") == kind.plural for resource in document.get("resources", []))
