"""Allocates the ports on which the activator listens: one for each Workspace that scales to zero."""

from collections.abc import Mapping
from typing import Final, final

from kaito.runtime.meta import ObjectKey

PORT_COUNT: Final = 5000
"""Number of ports from the first one, and so of Workspaces that scale to zero."""


class NoFreePort(Exception):
    """Every port has a Workspace."""


@final
class ActivatorPorts:
    """The ports that this process has allocated and whose EndpointSlices it may not see yet.

    The EndpointSlices in the cluster record the ports. One leader allocates, so that two Workspaces never get the same.

    Args:
        first: the first port.
    """

    def __init__(self, first: int) -> None:
        self._first = first
        self._pending: dict[ObjectKey, int] = {}

    def allocate(self, workspace: ObjectKey, used: Mapping[ObjectKey, int]) -> int:
        """Returns the port of a Workspace that has no EndpointSlice yet.

        Args:
            workspace: the Workspace.
            used: ports of all EndpointSlices that exist now, by Workspace.

        Raises:
            NoFreePort: all are used.
        """
        for key in used.keys() & self._pending.keys():
            del self._pending[key]
        taken = {*used.values(), *(port for key, port in self._pending.items() if key != workspace)}
        pending = self._pending.get(workspace)
        if pending is not None and pending not in taken:
            return pending
        free = next((port for port in range(self._first, self._first + PORT_COUNT) if port not in taken), None)
        if free is None:
            raise NoFreePort(f"all {PORT_COUNT} ports from {self._first} are used by Workspaces that scale to zero")
        self._pending[workspace] = free
        return free

    def release(self, workspace: ObjectKey) -> None:
        """Forgets the allocation of a Workspace that is deleted."""
        self._pending.pop(workspace, None)
