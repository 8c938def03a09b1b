"""Authorizes requests: RBAC over the stored roles and bindings, and denials that tests add.

Evaluated before every request for objects and by access reviews. Members of `system:masters` are always authorized, as
on a real server. Messages are those of `k8s.io/apiserver` (`responsewriters.ForbiddenStatusError`).

Of kube-apiserver's bootstrap roles there are `cluster-admin` and, for every user, reviews of the user's permissions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from kaito.apiserver import errors
from kaito.apiserver.registry.routes import Target
from kaito.apiserver.registry.selectors import selector_matches
from kaito.apiserver.registry.server_state import Context, ServerState
from kaito.apiserver.wire import HttpRequest, Object, part

Mode: TypeAlias = Literal["AlwaysAllow", "RBAC"]
"""As `--authorization-mode`."""

GROUP = "rbac.authorization.k8s.io"
MASTERS = "system:masters"
AUTHENTICATED = "system:authenticated"

_SELF_REVIEWS = frozenset({"selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews"})
"""Resources that the bootstrap role `system:basic-user` lets every user create."""
_EVERYTHING: Object = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
_EVERY_PATH: Object = {"nonResourceURLs": ["*"], "verbs": ["*"]}


@dataclass(frozen=True, slots=True)
class Attributes:
    """Attributes of a request for the authorizer; `path` for non-resource URLs."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""

    def __str__(self) -> str:
        """The end of a refusal: what the user cannot do."""
        if self.path:
            return f"{self.verb} path {errors.quote(self.path)}"
        where = f"in the namespace {errors.quote(self.namespace)}" if self.namespace else "at the cluster scope"
        resource = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        return f"{self.verb} resource {errors.quote(resource)} in API group {errors.quote(self.group)} {where}"


@dataclass(frozen=True, slots=True)
class Denial:
    """A permission denied regardless of roles. Empty fields match everything.

    Attributes:
        verbs: `list`, `watch`, `create`, …; `*` for all.
        group: API group of the resource.
        resource: its plural.
        subresource: this one only; None for the object and all of them.
        namespace: only there.
        name: only this object.
        exempt: user agents the denial does not concern.
    """

    verbs: frozenset[str]
    group: str
    resource: str
    subresource: str | None = None
    namespace: str = ""
    name: str = ""
    exempt: frozenset[str] = field(default_factory=frozenset[str])

    def concerns(self, attributes: Attributes, agent: str) -> bool:
        """Returns whether it forbids this."""
        return (
            agent not in self.exempt
            and (attributes.verb in self.verbs or "*" in self.verbs)
            and (attributes.group, attributes.resource) == (self.group, self.resource)
            and self.subresource in {None, attributes.subresource}
            and self.namespace in {"", attributes.namespace}
            and self.name in {"", attributes.name}
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """The authorizer's decision and its reason."""

    allowed: bool
    reason: str = ""


class Authorizer:
    """Decides for one server."""

    def __init__(self, state: ServerState, mode: Mode) -> None:
        self._state = state
        self._mode = mode
        self.denials: list[Denial] = []

    def check(self, attributes: Attributes, context: Context) -> None:
        """Raises 403 unless the user may do this."""
        decision = self.decide(attributes, context.user, context.groups, context.agent)
        if not decision.allowed:
            what = f"User {errors.quote(context.user)} cannot {attributes}"
            why = f"{what}: {decision.reason}" if decision.reason else what
            raise errors.forbidden(attributes.group, attributes.resource, attributes.name, _escaped(why))

    def decide(self, attributes: Attributes, user: str, groups: tuple[str, ...], agent: str = "") -> Decision:
        """Returns whether a user may do something."""
        if any(denial.concerns(attributes, agent) for denial in self.denials):
            return Decision(allowed=False)
        if self.is_superuser(groups):
            return Decision(allowed=True)
        if AUTHENTICATED in groups and (
            attributes.resource in _SELF_REVIEWS or (attributes.path and attributes.verb == "get")
        ):
            return Decision(allowed=True)
        missing: list[str] = []
        for binding, rules in self._bound(user, groups, attributes.namespace, missing):
            if any(_covers(rule, attributes) for rule in rules):
                return Decision(allowed=True, reason=f"RBAC: allowed by {binding}")
        if not missing:
            return Decision(allowed=False)
        listed = missing[0] if len(missing) == 1 else f"[{', '.join(dict.fromkeys(missing))}]"
        return Decision(allowed=False, reason=f"RBAC: {listed}")

    def is_superuser(self, groups: tuple[str, ...]) -> bool:
        """Returns whether members of these groups are authorized without a look at roles."""
        return self._mode == "AlwaysAllow" or MASTERS in groups

    def _bound(
        self, user: str, groups: tuple[str, ...], namespace: str, missing: list[str]
    ) -> Iterator[tuple[str, list[Object]]]:
        """Yields the rules bound to a user, by binding; roles that do not exist go into `missing`."""
        for kind in ("ClusterRoleBinding", "RoleBinding") if namespace else ("ClusterRoleBinding",):
            watch_cache = self._state.store.watch_cache(f"{kind.lower()}s.{GROUP}")
            for (where, name), stored in sorted(watch_cache.objects.items(), key=lambda item: item[0]):
                if where not in {"", namespace}:
                    continue
                subject = _subject(stored.data, user, groups, where)
                if not subject:
                    continue
                role: Object = stored.data.get("roleRef") or {}
                rules = self.rules_of(role, where)
                if rules is None:
                    missing.append(
                        f"{str(role.get('kind')).lower()}.{GROUP} {errors.quote(str(role.get('name')))} not found"
                    )
                    continue
                bound = errors.quote(f"{name}/{where}" if where else name)
                yield f"{kind} {bound} of {role['kind']} {errors.quote(role['name'])} to {subject}", rules

    def rules_of(self, role: Object, namespace: str) -> list[Object] | None:
        """Returns the rules of the role that a `roleRef` names, or None when there is none."""
        kind, name = role.get("kind"), str(role.get("name"))
        key = (namespace, name) if kind == "Role" else ("", name)
        stored = self._state.store.get(f"{str(kind).lower()}s.{GROUP}", key)
        if stored is None:
            return [_EVERYTHING, _EVERY_PATH] if (kind, name) == ("ClusterRole", "cluster-admin") else None
        rules: list[Object] = list(stored.data.get("rules") or ())
        selectors: list[Object] = part(stored.data, "aggregationRule").get("clusterRoleSelectors") or []
        if selectors:  # kube-controller-manager writes them into the role; here they are looked up
            for other in self._state.store.watch_cache(f"clusterroles.{GROUP}").objects.values():
                if any(selector_matches(selector, other.metadata.get("labels")) for selector in selectors):
                    rules += other.data.get("rules") or ()
        return rules


def _subject(binding: Object, user: str, groups: tuple[str, ...], namespace: str) -> str:
    """Returns how a binding names the user, or "" when it does not."""
    for subject in binding.get("subjects") or ():
        kind, name = subject.get("kind"), str(subject.get("name"))
        where = str(subject.get("namespace") or namespace)
        if kind == "ServiceAccount" and user == f"system:serviceaccount:{where}:{name}":
            return f"{kind} {errors.quote(f'{name}/{where}')}"
        if (kind == "User" and user == name) or (kind == "Group" and name in groups):
            return f"{kind} {errors.quote(name)}"
    return ""


def _covers(rule: Object, attributes: Attributes) -> bool:
    """Returns whether a `PolicyRule` allows something (`pkg/registry/rbac/validation`)."""
    if not _has(rule, "verbs", attributes.verb):
        return False
    if attributes.path:
        paths: list[str] = rule.get("nonResourceURLs") or []
        return any(
            path in {"*", attributes.path} or (path.endswith("*") and attributes.path.startswith(path[:-1]))
            for path in paths
        )
    if not _has(rule, "apiGroups", attributes.group):
        return False
    wanted = f"{attributes.resource}/{attributes.subresource}" if attributes.subresource else attributes.resource
    resources: list[str] = rule.get("resources") or []
    if not (
        "*" in resources
        or wanted in resources
        or (attributes.subresource and f"*/{attributes.subresource}" in resources)
    ):
        return False
    names: list[str] = rule.get("resourceNames") or []
    return not names or attributes.name in names


def _has(rule: Object, listing: str, value: str) -> bool:
    listed: list[str] = rule.get(listing) or []
    return "*" in listed or value in listed


def creation(target: Target) -> Attributes:
    """Returns the create permission that an update or apply needs when the object does not exist, and the upgrade of a
    connection to a pod."""
    resource = target.resource
    return Attributes("create", resource.group, resource.plural, target.subresource, target.namespace, target.name)


def attributes_of(target: Target, request: HttpRequest) -> Attributes:
    """Returns the attributes of a request. A list or watch of one name by field selector is about that name."""
    name = target.name
    if not name and target.verb in {"list", "watch", "deletecollection"}:
        terms = [term.partition("=") for term in request.param("fieldSelector").split(",")]
        name = next((value.lstrip("=") for field, _, value in terms if field == "metadata.name"), "")
    resource = target.resource
    namespace = target.namespace
    if resource.storage == "namespaces":
        namespace = target.name  # a namespace is in itself, so that roles in it can be about it
    return Attributes(target.verb, resource.group, resource.plural, target.subresource, namespace, name)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
