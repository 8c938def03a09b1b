"""Roles and role bindings."""

from typing import TYPE_CHECKING

from pydantic import Field

from kaito.runtime.meta import Model, Resource

if TYPE_CHECKING:
    from kaito.runtime.kinds.structs import AggregationRule
else:
    from kaito.runtime.kinds.deferred import AggregationRule

GROUP = "rbac.authorization.k8s.io"


class PolicyRule(Model):
    """Allowed verbs on resources."""

    verbs: list[str] = []
    api_groups: list[str] = []
    resources: list[str] = []
    resource_names: list[str] = []
    non_resource_urls: list[str] = Field(default_factory=list, alias="nonResourceURLs")


class RoleRef(Model):
    """Reference to the role of a binding."""

    api_group: str | None = None
    kind: str | None = None
    """`Role` or `ClusterRole`, or a value of a newer API server."""
    name: str = ""


class Subject(Model):
    """User, group or service account of a binding; a ServiceAccount has a namespace and no group."""

    kind: str | None = None
    """`ServiceAccount`, `User` or `Group`, or a value of a newer API server."""
    name: str = ""
    namespace: str | None = None
    api_group: str | None = None


class Role(Resource, api=f"{GROUP}/v1", kind="Role"):
    """Permissions in a namespace."""

    rules: list[PolicyRule] = []


class ClusterRole(Resource, api=f"{GROUP}/v1", kind="ClusterRole", namespaced=False):
    """Permissions in all namespaces, or in that of a RoleBinding."""

    rules: list[PolicyRule] = []
    aggregation_rule: AggregationRule | None = None


class RoleBinding(Resource, api=f"{GROUP}/v1", kind="RoleBinding"):
    """Grant of a role in a namespace."""

    role_ref: RoleRef = Field(default_factory=RoleRef)
    subjects: list[Subject] = []


class ClusterRoleBinding(Resource, api=f"{GROUP}/v1", kind="ClusterRoleBinding", namespaced=False):
    """Grant of a role in all namespaces."""

    role_ref: RoleRef = Field(default_factory=RoleRef)
    subjects: list[Subject] = []
