"""Selects the kinds of claims to reconcile: those configured, or those whose definitions are installed."""

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
    """Returns the kinds to reconcile; with `auto`, waits until at least one definition is installed.

    Raises:
        ConfigurationError: no cluster configuration was found.
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
                log.warning("reading the installed kinds failed, retrying", error=str(error))
                found = []
            if found:
                return found
            log.info("waiting for the definition of machines or nodeclaims")
            await asyncio.sleep(RETRY_SECONDS)


async def is_served(client: Client, kind: type[Claim]) -> bool:
    """Whether the cluster serves the kind, according to its discovery document."""
    try:
        document = await client.raw("GET", f"/apis/{kind.api_version}")
    except NotFound:
        return False
    return any(resource.get("name") == kind.plural for resource in document.get("resources", []))
