"""A collection of objects on the server: its path, selectors and headers, and the errors of its requests.

The reflector gets targets and headers from it; this module does no I/O.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from kaito.runtime.client.path import resource_path, with_query
from kaito.runtime.errors import ApiError, api_error
from kaito.runtime.meta import Resource

PAGE_SIZE: Final = 500
"""Objects per page of a LIST (client-go's pager); servers answering from their watch cache may ignore it."""

_PARTIAL = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_PARTIAL_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

_NOTHING = "runtime.kaito.sh/none=none"
"""A label selector that selects nothing."""

_STATUS = msgspec.json.Decoder(dict[str, Any])


@dataclass(frozen=True, slots=True)
class Collection:
    """The objects of one kind in one namespace (empty: all), narrowed by selectors."""

    path: str
    labels: str = ""
    fields: str = ""
    metadata_only: bool = False

    @property
    def list_headers(self) -> Mapping[str, str]:
        """Headers of a LIST. A server without support for PartialObjectMetadata sends whole objects."""
        return {"accept": f"{_PARTIAL_LIST},application/json" if self.metadata_only else "application/json"}

    @property
    def watch_headers(self) -> Mapping[str, str]:
        """Headers of a WATCH."""
        return {"accept": f"{_PARTIAL},application/json" if self.metadata_only else "application/json"}

    @property
    def metadata_headers(self) -> Mapping[str, str]:
        """Headers of a LIST of which only the version is used."""
        return {"accept": f"{_PARTIAL_LIST},application/json"}

    def list_target(self, *, version: str, limit: int, token: str) -> str:
        """The target of one page: not older than `version` (`0`: anything, empty: the newest)."""
        if token:
            return self._target({"limit": str(limit) if limit else "", "continue": token})
        return self._target(
            {
                "limit": str(limit) if limit else "",
                "resourceVersion": version,
                "resourceVersionMatch": "NotOlderThan" if version not in {"", "0"} else "",
            }
        )

    def watch_target(self, *, version: str, seconds: int) -> str:
        """The target of a watch that starts after `version`."""
        return self._target(
            {
                "watch": "true",
                "allowWatchBookmarks": "true",
                "resourceVersion": version,
                "timeoutSeconds": str(seconds),
            }
        )

    def stream_target(self, *, version: str, seconds: int) -> str:
        """The target of a watch with initial events (WatchList)."""
        return self._target(
            {
                "watch": "true",
                "allowWatchBookmarks": "true",
                "sendInitialEvents": "true",
                "resourceVersionMatch": "NotOlderThan",
                "resourceVersion": version,
                "timeoutSeconds": str(seconds),
            }
        )

    def question_stream(self, seconds: int) -> str:
        """The target of a watch with initial events that selects no object and therefore sends its version at once."""
        labels = f"{self.labels},{_NOTHING}" if self.labels else _NOTHING
        return replace(self, labels=labels).stream_target(version="", seconds=seconds)

    def question_list(self) -> str:
        """The target of a LIST that is sent for its version: any one object, most recent.

        Without the selectors: the server would read every object in search of one that matches.
        """
        return replace(self, labels="", fields="").list_target(version="", limit=1, token="")

    def _target(self, parameters: Mapping[str, str]) -> str:
        return with_query(self.path, {"labelSelector": self.labels, "fieldSelector": self.fields, **parameters})


def collection_path(kind: type[Resource], namespace: str = "") -> str:
    """The path of a kind's collection: `/apis/apps/v1/namespaces/default/deployments`."""
    return resource_path(kind.api_version, kind.plural, namespace=namespace)


def refusal(status: int, headers: Mapping[str, str], body: bytes, *, request: str) -> ApiError:
    """The typed error for a response with an error status."""
    retry_after = headers.get("retry-after", "")
    return api_error(
        status,
        _status_object(body),
        retry_after=float(retry_after) if retry_after.isdigit() else None,
        request=request,
    )


def event_error(text: bytes | msgspec.Raw, *, request: str) -> ApiError:
    """The typed error in the object of an ERROR event."""
    status = _status_object(bytes(text))
    code = status.get("code") if isinstance(status, dict) else None
    return api_error(code if isinstance(code, int) else 500, status, request=request)


def version_too_large(error: ApiError) -> bool:
    """Whether the server has not reached the requested version yet (it was restored, or another replica responded)."""
    return any(cause.get("reason") == "ResourceVersionTooLarge" for cause in error.causes) or (
        "Too large resource version" in error.message
    )


def _status_object(body: bytes) -> dict[str, Any] | str:
    try:
        return _STATUS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return body.decode(errors="replace")
