"""How cached objects are found by the Workspace they belong to, without walking all of them."""

from kaito.api import Claim, Machine, NodeClaim, Workspace
from kaito.runtime import Index
from kaito.runtime.kinds import Node, Pod
from kaito.runtime.meta import Resource
from kaito.workspace.ownership import owner_key, pod_owner_key


def _by_owner(thing: Resource) -> list[str]:
    key = owner_key(thing)
    return [str(key)] if key else []


def _by_pod_owner(thing: Resource) -> list[str]:
    key = pod_owner_key(thing)
    return [str(key)] if key else []


def _by_config(workspace: Workspace) -> list[str]:
    """`namespace/name` of the ConfigMap the Workspace names."""
    part = workspace.inference or workspace.tuning
    return [f"{workspace.namespace}/{part.config}"] if part and part.config else []


MACHINES = Index(Machine, _by_owner, name="by-workspace")
NODE_CLAIMS = Index(NodeClaim, _by_owner, name="by-workspace")
NODES = Index(Node, _by_owner, name="by-workspace")
PODS = Index(Pod, _by_pod_owner, name="by-workspace")
WORKSPACES_BY_CONFIG = Index(Workspace, _by_config, name="by-config")


def claims_index(kind: type[Claim]) -> Index:
    """The index of that kind of claim."""
    return MACHINES if kind is Machine else NODE_CLAIMS
