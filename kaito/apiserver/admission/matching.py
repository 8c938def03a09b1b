"""Matches requests with webhooks and policies: rules, namespace selectors and object selectors."""

from __future__ import annotations

from kaito.apiserver.registry.resources import Resource
from kaito.apiserver.registry.routes import Target
from kaito.apiserver.registry.selectors import selector_matches
from kaito.apiserver.registry.server_state import ServerState
from kaito.apiserver.wire import Object


def rule_matches(rule: Object, resource: Resource, subresource: str, operation: str) -> bool:
    """Returns whether a rule of a webhook or policy covers a request about this version of a resource."""

    def has(field: str, value: str) -> bool:
        listed: list[str] = rule.get(field) or []
        return "*" in listed or value in listed

    if not has("operations", operation) or not has("apiGroups", resource.group):
        return False
    if not has("apiVersions", resource.version):
        return False
    if rule.get("scope") not in {None, "*", "Namespaced" if resource.namespaced else "Cluster"}:
        return False
    wanted: list[str] = rule.get("resources") or []
    if subresource:
        names = {f"{resource.plural}/{subresource}", f"{resource.plural}/*", f"*/{subresource}", "*/*"}
    else:
        names = {resource.plural, "*", "*/*"}
    return any(name in names for name in wanted)


def matches_object(state: ServerState, match: Object, target: Target, data: Object | None, old: Object | None) -> bool:
    """Returns whether the selectors of a webhook or policy let a request through: its namespace's and either
    state's."""
    if target.resource.namespaced and match.get("namespaceSelector"):
        namespace = state.store.get("namespaces", ("", target.namespace))
        labels = None if namespace is None else namespace.metadata.get("labels")
        if not selector_matches(match["namespaceSelector"], labels):
            return False
    selector: Object = match.get("objectSelector") or {}
    return not selector or any(
        selector_matches(selector, state["metadata"].get("labels")) for state in (data, old) if state is not None
    )
