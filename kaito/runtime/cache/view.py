"""`View`: synchronous reads of the cache, for mappers and predicates.

A view never waits and sends no request: it returns what the informers hold, which may be older than this process's own
writes. Reconcilers use `request.api` instead.
"""

from builtins import list as List  # noqa: N812 -- `list` is a method here
from collections.abc import Mapping
from typing import TypeVar, final

from kaito.runtime.cache.cache import Cache
from kaito.runtime.client.consistency import IndexKey
from kaito.runtime.client.path import selector_of
from kaito.runtime.client.unreadable import Unreadable
from kaito.runtime.errors import NotFound
from kaito.runtime.meta import LabelSelector, ObjectKey, Resource

R = TypeVar("R", bound=Resource)


@final
class View:
    """Synchronous reads of the informers' objects.

    Args:
        cache: the cache to read.
        cluster: name of its cluster; empty for the manager's own.
        home: the view of the manager's own cluster, for that of another cluster.
    """

    def __init__(self, cache: Cache, *, cluster: str = "", home: "View | None" = None) -> None:
        self._cache = cache
        self.cluster: str = cluster
        """Name of the cluster that it reads; empty for the manager's own."""
        self.home: View = self if home is None else home
        """The view of the manager's own cluster: a mapper of another cluster's objects finds its keys there."""

    def find(self, kind: type[R], name: str, namespace: str = "") -> R | None:
        """The object, or None.

        Raises:
            UndeclaredKind: nothing declares the kind.
            CacheNotSynced: its first list has not arrived.
        """
        return self._cache.get(kind, ObjectKey(namespace if kind.namespaced else "", name))

    def get(self, kind: type[R], name: str, namespace: str = "") -> R:
        """The object.

        Raises:
            NotFound: the cache has no such object. Otherwise the errors of `find`.
        """
        found = self.find(kind, name, namespace)
        if found is None:
            raise NotFound(
                f"{kind.kind} {ObjectKey(namespace, name)} is not in the cache",
                code=404,
                reason="NotFound",
                details={"kind": kind.kind, "group": kind.group(), "name": name},
            )
        return found

    def list(
        self,
        kind: type[R],
        *,
        namespace: str = "",
        labels: LabelSelector | Mapping[str, str] | str | None = None,
        owned_by: Resource | None = None,
        index: IndexKey[R] | None = None,
        unreadable: Unreadable | None = None,
    ) -> List[R]:
        """The objects that match everything given, ordered by namespace and name. Raises as `find`.

        `Api.list` describes the treatment of objects that do not fit their model.
        """
        return self._cache.list(
            kind,
            namespace=namespace if kind.namespaced else "",
            labels=selector_of(labels),
            owner=owned_by.uid if owned_by is not None else "",
            index=index,
            unreadable=unreadable,
        )
