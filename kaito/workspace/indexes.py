"""How cached objects are found by the Workspace they belong to, without walking all of them."""

from typing import cast

from kaito.api import Claim, Machine, NodeClaim, Workspace
from kaito.runtime.cache import Index
from kaito.runtime.client import IndexKey
from kaito.runtime.kinds import Node, Pod
from kaito.runtime.meta import ObjectKey, Resource
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


def claims_of(kind: type[Claim], key: ObjectKey) -> IndexKey[Claim]:
    """The question: which claims of that kind name this Workspace as their owner?"""
    index = MACHINES if issubclass(kind, Machine) else NODE_CLAIMS
    return cast("IndexKey[Claim]", index(str(key)))
