"""Defaults of built-in types that their schemas do not express."""

from __future__ import annotations

from kaito.apiserver.kinds import Resource
from kaito.apiserver.wire import Object


def fill_builtin_defaults(data: Object, resource: Resource) -> None:
    """Fill in what the real server defaults, in place."""
    if resource.storage == "namespaces":
        data.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
        data.setdefault("status", {}).setdefault("phase", "Active")
        data["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = data["metadata"].get("name", "")
