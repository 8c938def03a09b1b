"""`Deletions`: for how long Workspaces are being deleted, as far as this process knows for certain.

`metadata.deletionTimestamp` is of the clock of the API server. The clock of this process may be wrong by an hour, and a
deletion that has begun a second ago would have timed out.
"""

from datetime import datetime
from typing import final

from kaito.api import Workspace
from kaito.runtime.clock import monotonic


@final
class Deletions:
    """When this process has first seen each deletion, by the monotonic clock."""

    def __init__(self) -> None:
        self._seen: dict[str, float] = {}

    def age_seconds(self, workspace: Workspace, now: datetime) -> float:
        """Returns the seconds since the deletion of a Workspace; at most those since this process has seen it first."""
        deleted = workspace.metadata.deletion_timestamp
        if deleted is None:
            return 0.0
        seen = monotonic() - self._seen.setdefault(workspace.uid, monotonic())
        return min((now - deleted).total_seconds(), seen)

    def forget(self, uid: str) -> None:
        """Drops what is known about a Workspace that is removed."""
        self._seen.pop(uid, None)
