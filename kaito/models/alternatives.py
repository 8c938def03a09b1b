"""Lists the instance types of a Workspace, and resolves the Workspace to one of them.

Everything that depends on the instance type (plan, pods, prices) reads `resource.instanceType`. A Workspace with
`resource.instanceTypes` is therefore planned once for each alternative, as a Workspace that names only this one.
"""

from typing import Final

from kaito.api.workspace import Workspace
from kaito.api.workspace.resource import MAX_ALTERNATIVES

FIELD: Final = "resource.instanceTypes"


def alternatives(workspace: Workspace) -> tuple[str, ...]:
    """Returns the alternatives in order; empty for a Workspace with one instance type, or with existing nodes.

    Admission rejects more than `MAX_ALTERNATIVES`.
    """
    return tuple(workspace.resource.instance_types[:MAX_ALTERNATIVES])


def resolved(workspace: Workspace, instance_type: str) -> Workspace:
    """Returns the Workspace as if it named only this instance type."""
    resource = workspace.resource.evolve(instance_type=instance_type, instance_types=[])
    return workspace.evolve(resource=resource)
