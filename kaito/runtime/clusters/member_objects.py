"""Reconciles of objects in the clusters of a set: their keys, and what the reconcile function receives."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar, final

from kaito.runtime.cache.view import View
from kaito.runtime.clusters.member import Member
from kaito.runtime.logging import get_logger
from kaito.runtime.meta import ObjectKey, Resource
from kaito.runtime.reconcile import Again, KeyedFunction, KeyedRequest

R = TypeVar("R", bound=Resource)

_log = get_logger(__name__)


@final
@dataclass(frozen=True, slots=True, order=True)
class ClusterKey:
    """An object in a cluster."""

    cluster: str
    """Name of the cluster. Keys of a controller that have this attribute are dropped with their cluster."""
    namespace: str
    name: str

    @property
    def key(self) -> ObjectKey:
        """Namespace and name."""
        return ObjectKey(self.namespace, self.name)

    def __str__(self) -> str:
        return f"{self.cluster}:{self.key}"


def same_object(obj: Resource, view: View) -> ClusterKey:
    """Maps an object to its key with its cluster; a mapper for `Controller.keyed(ClusterKey, ...)`."""
    return ClusterKey(view.cluster, obj.namespace, obj.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRequest(KeyedRequest[ClusterKey], Generic[R]):
    """One reconcile of one object in a cluster; `api` is that of the manager's own cluster."""

    object: R
    """The object from the cache of its cluster. Frozen, private to this run."""
    cluster: Member
    """The cluster: its `api` has cached reads and fenced writes."""


def work_on(
    find: Callable[[str], Member | None],
    kind: type[R],
    reconcile: Callable[[ClusterRequest[R]], Awaitable[Again | None]],
) -> KeyedFunction[ClusterKey]:
    """Returns the function of a keyed controller that calls `reconcile` with the object, if both still exist.

    `find` returns the cluster of a name.

    An error of a reconcile whose cluster is removed at that moment does not count as a failure.
    """

    async def work(request: KeyedRequest[ClusterKey]) -> Again | None:
        key, member = request.key, find(request.key.cluster)
        if member is None:
            return None
        try:
            obj = await member.api.find(kind, key.name, key.namespace)
            if obj is None:
                return None
            given: dict[str, Any] = {field.name: getattr(request, field.name) for field in fields(request)}
            again = await reconcile(ClusterRequest(**given, object=obj, cluster=member))
        except Exception as error:
            if not member.is_removed:
                raise
            _log.info("cluster removed during a reconcile", cluster=member.name, error=str(error))
            again = None
        return None if member.is_removed else again

    return work
