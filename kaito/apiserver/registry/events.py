"""Converts Events: those of core/v1 and of events.k8s.io/v1 are one stored object with renamed fields.

Objects are kept in the core form; `resources.convert` converts on the way out, the writing modules on the way in.
"""

from __future__ import annotations

from kaito.apiserver.wire import Object

_NEW_NAMES = {
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}
_OLD_NAMES = {new: old for old, new in _NEW_NAMES.items()}


def convert_event(data: Object, api_version: str) -> Object:
    """Returns an event in the other form."""
    if data.get("apiVersion") == api_version:
        return data
    names = _OLD_NAMES if api_version == "v1" else _NEW_NAMES
    converted = {names.get(name, name): value for name, value in data.items()}
    if api_version != "v1":
        for name in ("reportingController", "reportingInstance"):
            if not converted.get(name):
                converted.pop(name, None)
    return {**converted, "apiVersion": api_version}
