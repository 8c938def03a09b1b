"""Roles and who has them."""

from kaito.runtime.meta import Model, Resource

GROUP = "rbac.authorization.k8s.io"


class PolicyRule(Model):
    """What may be done to what."""

    verbs: list[str] = []
    api_groups: list[str] = []
    resources: list[str] = []
    resource_names: list[str] = []
    non_resource_urls: list[str] = []


class RoleRef(Model):
    """The role given."""

    api_group: str | None = None
    kind: str | None = None
    """`Role` or `ClusterRole`, or a value of a newer API server."""
    name: str = ""


class Subject(Model):
    """Whom it is given to; a ServiceAccount has a namespace and no group."""

    kind: str | None = None
    """`ServiceAccount`, `User` or `Group`, or a value of a newer API server."""
    name: str = ""
    namespace: str | None = None
    api_group: str | None = None


class Role(Resource, api=f"{GROUP}/v1", kind="Role"):
    """Permissions in a namespace."""

    rules: list[PolicyRule] = []


class ClusterRole(Resource, api=f"{GROUP}/v1", kind="ClusterRole", namespaced=False):
    """Permissions everywhere, or in the namespace of a RoleBinding."""

    rules: list[PolicyRule] = []


class RoleBinding(Resource, api=f"{GROUP}/v1", kind="RoleBinding"):
    """A role given in a namespace."""

    role_ref: RoleRef = RoleRef()
    subjects: list[Subject] = []


class ClusterRoleBinding(Resource, api=f"{GROUP}/v1", kind="ClusterRoleBinding", namespaced=False):
    """A role given everywhere."""

    role_ref: RoleRef = RoleRef()
    subjects: list[Subject] = []
