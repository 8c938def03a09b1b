"""Privilege-escalation check: the author of a role or binding must already hold its permissions, or have the verbs
`escalate` and `bind`. `Writer` calls it before a role or binding is stored (`pkg/registry/rbac/escalation_check.go`).
"""

from __future__ import annotations

from collections.abc import Iterator

from kaito.apiserver import errors
from kaito.apiserver.auth.rbac import GROUP, Attributes, Authorizer
from kaito.apiserver.registry.routes import Target
from kaito.apiserver.registry.server_state import Context
from kaito.apiserver.wire import Object, part

_ROLES = frozenset({"roles", "clusterroles"})
_BINDINGS = frozenset({"rolebindings", "clusterrolebindings"})


def check_escalation(
    authorizer: Authorizer, target: Target, data: Object, old: Object | None, context: Context
) -> None:
    """Raises 403 for a role or binding that grants more than its author has."""
    resource = target.resource
    if resource.group != GROUP or authorizer.is_superuser(context.groups):
        return
    metadata: Object = data["metadata"]
    name, namespace = str(metadata.get("name", "")), target.namespace
    if resource.plural in _ROLES:
        if old is not None and old.get("rules") == data.get("rules"):
            return
        given: list[Object] = data.get("rules") or []
        exempt = Attributes("escalate", GROUP, resource.plural, "", namespace, name)
    elif resource.plural in _BINDINGS:
        role = part(data, "roleRef")
        if old is not None and old.get("subjects") == data.get("subjects"):
            return
        given = authorizer.rules_of(role, namespace) or []
        exempt = Attributes("bind", GROUP, f"{str(role.get('kind')).lower()}s", "", namespace, str(role.get("name")))
    else:
        return
    if authorizer.decide(exempt, context.user, context.groups, context.agent).allowed:
        return
    missing = _missing(authorizer, given, namespace, context)
    if missing:
        groups = " ".join(errors.quote(group) for group in context.groups)
        why = (
            f"user {errors.quote(context.user)} (groups=[{groups}]) is attempting to grant RBAC permissions not "
            f"currently held:\n" + "\n".join(sorted(missing))
        )
        raise errors.forbidden(resource.group, resource.plural, name, why)


def _missing(authorizer: Authorizer, given: list[Object], namespace: str, context: Context) -> list[str]:
    """Returns the permissions that the author lacks, formatted as Go does: verbs together, the rest one by one."""
    lacking: dict[str, list[str]] = {}
    for rule in given:
        for verb, what, attributes in _atoms(rule, namespace):
            if not authorizer.decide(attributes, context.user, context.groups, context.agent).allowed:
                verbs = lacking.setdefault(what, [])
                if verb not in verbs:
                    verbs.append(verb)
    return [f"{{{what}, Verbs:{_listed(verbs)}}}" for what, verbs in lacking.items()]


def _atoms(rule: Object, namespace: str) -> Iterator[tuple[str, str, Attributes]]:
    verbs: list[str] = rule.get("verbs") or []
    paths: list[str] = rule.get("nonResourceURLs") or []
    names: list[str] = rule.get("resourceNames") or []
    for verb in verbs:
        for path in paths:
            yield verb, f"NonResourceURLs:{_listed([path])}", Attributes(verb, path=path)
        for group in rule.get("apiGroups") or ():
            for resource in rule.get("resources") or ():
                plural, _, subresource = str(resource).partition("/")
                for name in names or [""]:
                    what = f"APIGroups:{_listed([group])}, Resources:{_listed([resource])}"
                    what += f", ResourceNames:{_listed([name])}" if name else ""
                    yield verb, what, Attributes(verb, group, plural, subresource, namespace, name)


def _listed(names: list[str]) -> str:
    return f"[{' '.join(errors.quote(name) for name in names)}]"
