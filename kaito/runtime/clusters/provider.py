"""`ClusterProvider`: adds clusters to a set and removes them, as multicluster-runtime's providers do."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kaito.runtime.manager.dynamic_clusters import HomeServices

if TYPE_CHECKING:
    from kaito.runtime.clusters.cluster_set import ClusterSet


class ClusterProvider(ABC):
    """Base class of providers, of which each belongs to one `ClusterSet`."""

    @abstractmethod
    async def run(self, clusters: "ClusterSet", home: HomeServices) -> None:
        """Call `clusters.add` and `clusters.discard` until cancelled, on every replica.

        A failure ends the manager.
        """

    async def wait_synced(self) -> None:
        """Wait until the clusters that exist at the start were added: controllers of the set start after that."""
        return

    @property
    def sync_error(self) -> str:
        """Why they were not added yet; empty if that is not known."""
        return ""

    def busy(self) -> Sequence[str]:
        """Work in progress; tests use it to wait until idle."""
        return ()
