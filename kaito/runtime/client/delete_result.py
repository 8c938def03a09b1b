"""Interprets the response to a DELETE request."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class DeleteResult:
    """Result of a DELETE request."""

    existed: bool
    """False if the object (with the given UID) did not exist."""
    resource_version: str = ""
    """The version of a terminating object that finalizers or a grace period keep; empty if it is deleted."""
    uid: str = ""
    """UID of the deleted object, if the response contains it."""
    after_lost_response: bool = False
    """The response to an earlier attempt was lost: that attempt may have deleted the object."""

    @property
    def is_deleted(self) -> bool:
        """Whether the object does not exist any more."""
        return not self.resource_version


def parse_delete_result(body: Mapping[str, Any]) -> DeleteResult:
    """Interprets the response: a Status, or the object, which remains if it has finalizers or a grace period."""
    if body.get("kind") == "Status":
        details: Mapping[str, Any] = body.get("details") or {}
        return DeleteResult(existed=True, uid=str(details.get("uid", "")))
    metadata: Mapping[str, Any] = body.get("metadata") or {}
    remains = bool(metadata.get("finalizers")) or int(metadata.get("deletionGracePeriodSeconds") or 0) > 0
    version = str(metadata.get("resourceVersion", "")) if remains else ""
    return DeleteResult(existed=True, resource_version=version, uid=str(metadata.get("uid", "")))
