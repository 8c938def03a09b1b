"""Discovery: `/api`, `/apis`, one group, one version, and the aggregated form that clients request first."""

from __future__ import annotations

import re

from kaito.apiserver.registry.resources import Registry, Resource
from kaito.apiserver.wire import HttpRequest, HttpResponse, Object, encode, json_response, raw_response

_AGGREGATED = re.compile(
    r"application/json;(?=[^,]*g=apidiscovery\.k8s\.io)(?=[^,]*as=APIGroupDiscoveryList)[^,]*v=(v2(?:beta1)?)\b"
)
_SUBRESOURCE_KINDS: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "scale": ("autoscaling", "v1", "Scale", ("get", "patch", "update")),
    "eviction": ("policy", "v1", "Eviction", ("create",)),
    "binding": ("", "v1", "Binding", ("create",)),
    "token": ("authentication.k8s.io", "v1", "TokenRequest", ("create",)),
    "log": ("", "v1", "Pod", ("get",)),
    "exec": ("", "v1", "PodExecOptions", ("create", "get")),
    "portforward": ("", "v1", "PodPortForwardOptions", ("create", "get")),
    "finalize": ("", "v1", "Namespace", ("update",)),
}
SERVER_ADDRESS = {"clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1"}


def version_rank(version: str) -> tuple[int, int, int]:
    """Returns the sorting key of a version, best first: v2, v1, v1beta2, v1beta1, v1alpha1."""
    match = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", version)
    if match is None:
        return (3, 0, 0)
    stage = {None: 0, "beta": 1, "alpha": 2}[match.group(2)]
    return (stage, -int(match.group(1)), -int(match.group(3) or 0))


def group_versions(registry: Registry) -> dict[str, list[str]]:
    """Returns the served versions of each group, preferred first; groups in order of registration."""
    groups: dict[str, list[str]] = {}
    for resource in registry.all():
        versions = groups.setdefault(resource.group, [])
        if resource.version not in versions:
            versions.append(resource.version)
    return {group: sorted(versions, key=version_rank) for group, versions in groups.items()}


def _resources_of(registry: Registry, group: str, version: str) -> list[Resource]:
    return [found for found in registry.all() if (found.group, found.version) == (group, version)]


def _subresource(resource: Resource, name: str) -> tuple[str, str, str, tuple[str, ...]]:
    default = (resource.group, resource.version, resource.kind, ("get", "patch", "update"))
    return _SUBRESOURCE_KINDS.get(name, default)


def resource_list(registry: Registry, group: str, version: str) -> Object:
    """Returns the `APIResourceList` of a group version."""
    entries: list[Object] = []
    for resource in _resources_of(registry, group, version):
        entry: Object = {
            "name": resource.plural,
            "singularName": resource.singular or resource.kind.lower(),
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": list(resource.verbs),
        }
        if resource.short_names:
            entry["shortNames"] = list(resource.short_names)
        if resource.categories:
            entry["categories"] = list(resource.categories)
        entries.append(entry)
        entries += [_listed_subresource(resource, name) for name in sorted(resource.subresources)]
    api_version = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": entries}


def _listed_subresource(resource: Resource, name: str) -> Object:
    group, version, kind, verbs = _subresource(resource, name)
    entry: Object = {
        "name": f"{resource.plural}/{name}",
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": kind,
        "verbs": list(verbs),
    }
    if (group, version) != (resource.group, resource.version):
        entry["group"], entry["version"] = group, version
    return entry


def _group_entry(group: str, versions: list[str]) -> Object:
    listed = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
    return {"name": group, "versions": listed, "preferredVersion": listed[0]}


def _aggregated_resource(resource: Resource) -> Object:
    entry: Object = {
        "resource": resource.plural,
        "responseKind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular or resource.kind.lower(),
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    if resource.subresources:
        entry["subresources"] = [
            {
                "subresource": name,
                "responseKind": dict(zip(("group", "version", "kind"), _subresource(resource, name)[:3], strict=True)),
                "verbs": list(_subresource(resource, name)[3]),
            }
            for name in sorted(resource.subresources)
        ]
    return entry


def _aggregated(registry: Registry, *, core: bool, api: str) -> HttpResponse:
    items: list[Object] = []
    for group, versions in group_versions(registry).items():
        if bool(group) == core:
            continue
        items.append(
            {
                "metadata": {"name": group, "creationTimestamp": None},
                "versions": [
                    {
                        "version": version,
                        "resources": [_aggregated_resource(found) for found in _resources_of(registry, group, version)],
                        "freshness": "Current",
                    }
                    for version in versions
                ],
            }
        )
    body: Object = {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{api}",
        "metadata": {},
        "items": items,
    }
    content_type = f"application/json;g=apidiscovery.k8s.io;v={api};as=APIGroupDiscoveryList"
    return raw_response(encode(body), content_type=content_type)


def discover(registry: Registry, request: HttpRequest) -> HttpResponse | None:
    """Answers a discovery request, or returns None when the path is not one."""
    parts = request.path.strip("/").split("/")
    match = _AGGREGATED.search(request.headers.get("accept", "").replace(" ", ""))
    match parts:
        case ["api"]:
            if match:
                return _aggregated(registry, core=True, api=match.group(1))
            body: Object = {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [SERVER_ADDRESS]}
            return json_response(body)
        case ["apis"]:
            if match:
                return _aggregated(registry, core=False, api=match.group(1))
            groups = [_group_entry(name, versions) for name, versions in group_versions(registry).items() if name]
            return json_response({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        case ["apis", group] if registry.has_group(group):
            entry = _group_entry(group, group_versions(registry)[group])
            return json_response({"kind": "APIGroup", "apiVersion": "v1", **entry})
        case ["api", version] if registry.has_group_version("", version):
            return json_response(resource_list(registry, "", version))
        case ["apis", group, version] if registry.has_group_version(group, version):
            return json_response(resource_list(registry, group, version))
        case _:
            return None
