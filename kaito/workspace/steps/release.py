"""Deletes the claims of a Workspace, and before them the NodePool from which Karpenter would create them again."""

from collections.abc import Iterable

from kaito.api import Claim, Workspace
from kaito.api.karpenter import NodePool
from kaito.runtime import Api
from kaito.runtime.errors import NotFound
from kaito.workspace.context import ReconcileContext
from kaito.workspace.manifests.node_pool import node_pool_name
from kaito.workspace.ownership import owns_pool
from kaito.workspace.settings import NodeApi


async def release_claims(ctx: ReconcileContext, claims: Iterable[Claim]) -> list[Claim]:
    """Deletes claims, and returns those that were not being deleted already."""
    if ctx.settings.node_api is NodeApi.KARPENTER:
        await delete_pool(ctx.api, ctx.workspace)
    return [claim for claim in claims if await ctx.api.delete(claim)]


async def delete_pool(api: Api, workspace: Workspace) -> bool:
    """Deletes the Workspace's pool, and returns whether it existed."""
    try:
        pool = await api.find(NodePool, node_pool_name(workspace))
    except NotFound:
        return False  # the kind is not installed
    if pool is None or not owns_pool(workspace, pool):
        return False
    if not pool.deleting:
        await api.delete(pool)
    return True
