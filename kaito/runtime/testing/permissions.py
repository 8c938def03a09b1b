"""Generates minimal RBAC rules from the requests of a test, for `World.rules_needed`.

Verbs of a resource are merged, and so are resources with the same verbs.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from kaito.runtime.kinds import PolicyRule

READING: Final = {"get", "list", "watch"}

VERBS: Final = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
"""Usual order of verbs in roles."""


def rules_for(permissions: Iterable[tuple[str, str, str]]) -> list[PolicyRule]:
    """Returns the rules that allow verbs, groups and resources (`pods`, `pods/status`).

    `watch` includes `list` and `get`: whether an informer lists depends on the server, and reads are live while the
    watch lags behind.
    """
    verbs: dict[tuple[str, str], set[str]] = {}
    for verb, group, resource in permissions:
        verbs.setdefault((group, resource), set()).update(READING if verb == "watch" else {verb})
    resources: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (group, resource), allowed in sorted(verbs.items()):
        resources.setdefault((group, _ordered(allowed)), []).append(resource)
    return [_rule(key, names) for key, names in sorted(resources.items(), key=lambda item: (item[0][0], item[1]))]


def _rule(key: tuple[str, tuple[str, ...]], resources: list[str]) -> PolicyRule:
    group, verbs = key
    return PolicyRule(api_groups=[group], resources=resources, verbs=list(verbs))


def _ordered(verbs: Iterable[str]) -> tuple[str, ...]:
    place: Mapping[str, int] = {verb: number for number, verb in enumerate(VERBS)}
    return tuple(sorted(verbs, key=lambda verb: (place.get(verb, len(VERBS)), verb)))
