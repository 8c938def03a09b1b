"""Builds URLs of the Kubernetes API, such as
`/apis/apps/v1/namespaces/default/deployments/web/status?fieldManager=me`."""

import re
from collections.abc import Mapping
from urllib.parse import quote

from kaito.runtime.errors import ConfigurationError
from kaito.runtime.meta import LabelSelector

Query = Mapping[str, str | int | bool | None]
"""Query parameters; their names need no quoting."""

_PLAIN = re.compile(r"[A-Za-z0-9._~-]*")
"""Text that `quote` does not change, which is nearly every name; matching is ten times faster than quoting."""


def group_path(api_version: str) -> str:
    """Returns the root path of a group version: `/api/v1` for the core group, else `/apis/<group>/<version>`."""
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def resource_path(
    api_version: str,
    plural: str,
    *,
    namespace: str = "",
    name: str = "",
    subresource: str = "",
) -> str:
    """Returns the path of a collection, an object or a subresource; names are quoted."""
    parts = [group_path(api_version)]
    if namespace:
        parts.append(f"namespaces/{_segment(namespace)}")
    parts.append(plural)
    if name:
        parts.append(_segment(name))
    if subresource:
        parts.append(subresource)
    return "/".join(parts)


def _segment(name: str) -> str:
    if name in {".", ".."} or "/" in name or "%" in name:
        # The API server rejects these as path segments, too (apimachinery, IsValidPathSegmentName).
        message = f"{name!r} is not a valid object name"
        raise ConfigurationError(message)
    return name if _PLAIN.fullmatch(name) else quote(name, safe="")


def with_query(path: str, query: Query) -> str:
    """Adds a query to a path; parameters that are None or empty are omitted."""
    pairs = {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in query.items()
        if value is not None and value != ""
    }
    return f"{path}?{'&'.join(f'{name}={_value(value)}' for name, value in pairs.items())}" if pairs else path


def _value(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else quote(text)


def selector_of(labels: LabelSelector | Mapping[str, str] | str | None) -> LabelSelector | None:
    """Converts any accepted form of a label selector; None selects everything.

    Raises:
        ConfigurationError: The text is not a label selector.
    """
    if isinstance(labels, str):
        try:
            return LabelSelector.parse(labels)
        except ValueError as error:
            raise ConfigurationError(f"labels={labels!r}: {error}") from error
    return LabelSelector(match_labels=dict(labels)) if isinstance(labels, Mapping) else labels


def label_query(labels: LabelSelector | Mapping[str, str] | str | None) -> str:
    """Returns the `labelSelector` parameter for any accepted form of a label selector."""
    if labels is None or isinstance(labels, str):
        return labels or ""
    return str(labels if isinstance(labels, LabelSelector) else LabelSelector(match_labels=dict(labels)))


def field_query(fields: Mapping[str, str] | str | None) -> str:
    """Returns the `fieldSelector` parameter."""
    if fields is None or isinstance(fields, str):
        return fields or ""
    return ",".join(f"{path}={value}" for path, value in sorted(fields.items()))
