"""Parses the method and path of a request into verb and resource.

`parse` returns a `Target`, or raises the 404 or 405 of the real server.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

from kaito.apiserver.errors import method_not_allowed, no_such_resource, not_found
from kaito.apiserver.registry.resources import Registry, Resource
from kaito.apiserver.wire import HttpRequest


class UnknownPath(Exception):
    """Nothing is served under this path (plain-text 404)."""


@dataclass(frozen=True, slots=True)
class Target:
    """The resource, object and verb of a request."""

    verb: str
    """get, list, watch, create, update, patch, delete or deletecollection."""
    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""


_COLLECTION = {"GET": "list", "POST": "create", "DELETE": "deletecollection"}
_ITEM = {"GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def parse(registry: Registry, request: HttpRequest) -> Target:
    """Returns the target of a request for objects."""
    parts = [unquote(part) for part in request.path.strip("/").split("/")]
    group, version, rest = _group_version(parts)
    if not registry.has_group_version(group, version):
        if registry.has_builtin_group(group):
            raise no_such_resource()
        raise UnknownPath(request.path)
    namespace, rest = _namespace(rest)
    resource = registry.find(group, version, rest[0]) if rest else None
    if resource is None or len(rest) > 3:
        raise no_such_resource()
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    if (namespace and not resource.namespaced) or (name and resource.namespaced and not namespace):
        if resource.custom:
            raise UnknownPath(request.path)
        raise no_such_resource()
    if subresource and subresource not in resource.subresources:
        raise not_found(resource.group, resource.plural, name) if resource.custom else no_such_resource()
    verb = _verb(request, name=name, subresource=subresource)
    if verb not in resource.verbs and not subresource:
        raise method_not_allowed()
    if verb in {"create", "deletecollection"} and resource.namespaced and not namespace and "list" in resource.verbs:
        raise method_not_allowed()
    return Target(verb, resource, namespace, name, subresource)


def _group_version(parts: list[str]) -> tuple[str, str, list[str]]:
    if parts[0] == "api" and len(parts) > 2:
        return "", parts[1], parts[2:]
    if parts[0] == "apis" and len(parts) > 3:
        return parts[1], parts[2], parts[3:]
    raise UnknownPath("/".join(parts))


def _namespace(rest: list[str]) -> tuple[str, list[str]]:
    """Splits `namespaces/NAME/...`; a namespace's own subresources stay with the namespace."""
    if rest[0] == "namespaces" and len(rest) > 2 and not (len(rest) == 3 and rest[2] in {"status", "finalize"}):
        return rest[1], rest[2:]
    return "", rest


def _verb(request: HttpRequest, *, name: str, subresource: str) -> str:
    if name:
        if request.method == "POST" and subresource:
            return "create"
        verb = _ITEM.get(request.method)
    else:
        verb = _COLLECTION.get(request.method)
        if verb == "list" and request.flag("watch"):
            return "watch"
    if verb is None:
        raise method_not_allowed()
    return verb
