"""Where a kind lives in the API: its plural and whether it has namespaces.

Declared kinds say it themselves; `kaito.runtime.discovery` answers for the others.
"""

from dataclasses import dataclass
from typing import Protocol

from kaito.runtime.meta import GroupVersionKind


@dataclass(frozen=True, slots=True)
class RestMapping:
    """The resource of a kind."""

    plural: str
    namespaced: bool


class Discovery(Protocol):
    """Finds the resource of a kind by asking the server."""

    async def rest_mapping(self, gvk: GroupVersionKind) -> RestMapping:
        """The resource of the kind.

        Raises:
            NotFound: the server does not serve the kind (its CRD may come later).
            TransportError: the server did not answer.
        """
        ...

    def invalidate(self, gvk: GroupVersionKind) -> None:
        """What was known of the kind's group version turned out wrong: ask again next time."""
        ...
