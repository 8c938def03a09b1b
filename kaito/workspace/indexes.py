"""Indexes of the cache: objects by the Workspace that they belong to."""

from typing import cast

from kaito.api import Claim, Machine, NodeClaim, Workspace
from kaito.runtime.cache import Index
from kaito.runtime.client import IndexKey
from kaito.runtime.kinds import Node, Pod
from kaito.runtime.meta import ObjectKey, Resource
from kaito.workspace.ownership import inference_set_name, owner_key, pod_owner_key


def _by_owner(obj: Resource) -> list[str]:
    key = owner_key(obj)
    return [str(key)] if key else []


def _by_pod_owner(obj: Resource) -> list[str]:
    key = pod_owner_key(obj)
    return [str(key)] if key else []


def _by_config(workspace: Workspace) -> list[str]:
    """Returns `namespace/name` of the ConfigMaps that the Workspace names."""
    part = workspace.inference or workspace.tuning
    if part is None:
        return []
    facts = part.preset.preset_options.model_facts if part.preset is not None else ""
    return [f"{workspace.namespace}/{name}" for name in (part.config, facts) if name]


_EVERY_NODE = ""


def _by_selector(workspace: Workspace) -> list[str]:
    """Returns one label that every node of the Workspace has; a selector without labels may match every node."""
    wanted = workspace.resource.label_selector.match_labels
    return [f"{name}={wanted[name]}" for name in sorted(wanted)[:1]] or [_EVERY_NODE]


MACHINES = Index(Machine, _by_owner, name="by-workspace")
NODE_CLAIMS = Index(NodeClaim, _by_owner, name="by-workspace")
NODES = Index(Node, _by_owner, name="by-workspace")
PODS = Index(Pod, _by_pod_owner, name="by-workspace")
WORKSPACES_BY_CONFIG = Index(Workspace, _by_config, name="by-config")
WORKSPACES_BY_SELECTOR = Index(Workspace, _by_selector, name="by-selector")


def _by_set(workspace: Workspace) -> list[str]:
    """Returns `namespace/name` of the InferenceSet."""
    name = inference_set_name(workspace)
    return [f"{workspace.namespace}/{name}"] if name else []


def _by_scale_to_zero(workspace: Workspace) -> list[str]:
    scaling = workspace.spec.autoscaling
    return [_TO_ZERO] if scaling is not None and scaling.scales_to_zero else []


_TO_ZERO = "true"
WORKSPACES_BY_SET = Index(Workspace, _by_set, name="by-inference-set")
_WORKSPACES_BY_SCALE_TO_ZERO = Index(Workspace, _by_scale_to_zero, name="scales-to-zero")
WORKSPACE_INDEXES = (WORKSPACES_BY_CONFIG, WORKSPACES_BY_SET, _WORKSPACES_BY_SCALE_TO_ZERO)
"""The indexes that the controller needs in each mode."""


def set_of(workspace: Workspace) -> IndexKey[Workspace]:
    """Returns the index key of the Workspaces of the same InferenceSet."""
    return WORKSPACES_BY_SET(*_by_set(workspace))


def scale_to_zero() -> IndexKey[Workspace]:
    """Returns the index key of the Workspaces that scale to zero."""
    return _WORKSPACES_BY_SCALE_TO_ZERO(_TO_ZERO)


def may_select(node: Node) -> IndexKey[Workspace]:
    """Returns the index key of the Workspaces whose selector may match the node."""
    return WORKSPACES_BY_SELECTOR(_EVERY_NODE, *(f"{name}={value}" for name, value in node.labels.items()))


def claims_of(kind: type[Claim], key: ObjectKey) -> IndexKey[Claim]:
    """Returns the index key of the claims of a kind whose labels name this Workspace."""
    index = MACHINES if issubclass(kind, Machine) else NODE_CLAIMS
    return cast("IndexKey[Claim]", index(str(key)))
