"""The result of a deletion, read from the server's answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class DeleteResult:
    """What a delete did."""

    existed: bool
    """False: the object (or the one with the given UID) was gone already."""
    resource_version: str = ""
    """The version of an object that stays for its finalizers or grace period; empty when it is gone."""
    uid: str = ""
    """UID of the deleted object, if the server sent it."""
    after_lost_response: bool = False
    """An earlier attempt got no answer: it may be what deleted the object."""

    @property
    def is_deleted(self) -> bool:
        """Whether nothing is left on the server."""
        return not self.resource_version


def parse_delete_result(answer: Mapping[str, Any]) -> DeleteResult:
    """Whether the object in a delete's answer stays: only with finalizers, or for its grace period."""
    if answer.get("kind") == "Status":
        details: Mapping[str, Any] = answer.get("details") or {}
        return DeleteResult(existed=True, uid=str(details.get("uid", "")))
    metadata: Mapping[str, Any] = answer.get("metadata") or {}
    stays = bool(metadata.get("finalizers")) or int(metadata.get("deletionGracePeriodSeconds") or 0) > 0
    version = str(metadata.get("resourceVersion", "")) if stays else ""
    return DeleteResult(existed=True, resource_version=version, uid=str(metadata.get("uid", "")))
