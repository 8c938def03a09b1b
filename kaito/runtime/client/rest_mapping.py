"""Maps kinds to API resources: plural and scope (apimachinery's RESTMapping).

Models declare both; `kaito.runtime.discovery` finds them for kinds without a plural.
"""

from dataclasses import dataclass
from typing import Protocol

from kaito.runtime.meta import GroupVersionKind


@dataclass(frozen=True, slots=True)
class RestMapping:
    """Plural and scope of a kind."""

    plural: str
    namespaced: bool


class Discovery(Protocol):
    """Finds the resources of kinds through the server's discovery API."""

    async def rest_mapping(self, gvk: GroupVersionKind) -> RestMapping:
        """Returns the mapping of the kind.

        Raises:
            NotFound: The server does not serve the kind (its CRD may be installed later).
            TransportError: The server did not respond.
        """
        ...

    def invalidate(self, gvk: GroupVersionKind) -> None:
        """Discards the cached resources of the kind's group version, because they proved wrong."""
        ...
