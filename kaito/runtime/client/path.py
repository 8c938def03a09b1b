"""URLs of the Kubernetes API: `/apis/apps/v1/namespaces/default/deployments/web/status?fieldManager=me`."""

import re
from collections.abc import Mapping
from urllib.parse import quote

from kaito.runtime.errors import ConfigurationError
from kaito.runtime.meta import LabelSelector

Query = Mapping[str, str | int | bool | None]
"""Parameters; their names need no quoting."""

_PLAIN = re.compile(r"[A-Za-z0-9._~-]*")
"""What `quote` leaves as it is: nearly every name, at a tenth of its cost."""


def group_path(api_version: str) -> str:
    """The root of one group version: `/api/v1` for the core group, else `/apis/<group>/<version>`."""
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def resource_path(
    api_version: str,
    plural: str,
    *,
    namespace: str = "",
    name: str = "",
    subresource: str = "",
) -> str:
    """The path of a collection, an object or its subresource; every part is quoted, so no name can leave its place."""
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
        # The API server refuses these as path segments too (apimachinery, IsValidPathSegmentName).
        message = f"{name!r} cannot be the name of an object"
        raise ConfigurationError(message)
    return name if _PLAIN.fullmatch(name) else quote(name, safe="")


def with_query(path: str, query: Query) -> str:
    """The path and its query; parameters that are None or empty are left out."""
    pairs = {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in query.items()
        if value is not None and value != ""
    }
    return f"{path}?{'&'.join(f'{name}={_value(value)}' for name, value in pairs.items())}" if pairs else path


def _value(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else quote(text)


def selector_of(labels: LabelSelector | Mapping[str, str] | str | None) -> LabelSelector | None:
    """The selector of any of the accepted spellings; None selects everything.

    Raises:
        ConfigurationError: a text that is no selector.
    """
    if isinstance(labels, str):
        try:
            return LabelSelector.parse(labels)
        except ValueError as error:
            raise ConfigurationError(f"labels={labels!r}: {error}") from error
    return LabelSelector(match_labels=dict(labels)) if isinstance(labels, Mapping) else labels


def label_query(labels: LabelSelector | Mapping[str, str] | str | None) -> str:
    """The `labelSelector` parameter of any of the accepted spellings."""
    if labels is None or isinstance(labels, str):
        return labels or ""
    return str(labels if isinstance(labels, LabelSelector) else LabelSelector(match_labels=dict(labels)))


def field_query(fields: Mapping[str, str] | str | None) -> str:
    """The `fieldSelector` parameter."""
    if fields is None or isinstance(fields, str):
        return fields or ""
    return ",".join(f"{path}={value}" for path, value in sorted(fields.items()))
