"""Determines the node class of NodeClaims: from the Workspace's annotations, the flags, or the default of the cloud.

A node class is the cloud provider's settings of a node (image, network, disk). Its kind determines which provisioner
fulfills a claim: a controller of Karpenter ignores claims whose class has another kind than its own.
"""

from typing import Final, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, model_validator

from kaito.api import Workspace, labels
from kaito.api.karpenter import NodeClassRef
from kaito.api.karpenter.nodeclaim import KAITO_NODE_CLASS_GROUP, KAITO_NODE_CLASS_KIND, NODE_CLASS_KIND_PATTERN
from kaito.api.object_names import is_subdomain

AZURE_GROUP: Final = "karpenter.azure.com"
"""API group of Azure's Karpenter provider."""

AWS_GROUP: Final = "karpenter.k8s.aws"
"""API group of the Karpenter provider of AWS."""

DEFAULT_NAME: Final = "default"


class NodeClassKind(NamedTuple):
    """A kind of node class in the API."""

    group: str
    kind: str
    version: str = ""
    """Version in which objects are read; empty if discovery must find it."""
    resource_name: str = ""
    """Plural name in the API; empty if discovery must find it."""


KAITO: Final = NodeClassKind(KAITO_NODE_CLASS_GROUP, KAITO_NODE_CLASS_KIND)
"""The node class of the gpu-provisioner. It has no objects: the claim contains all settings."""

_KNOWN: Final = (
    KAITO,
    NodeClassKind(AZURE_GROUP, "AKSNodeClass", "v1beta1", "aksnodeclasses"),
    NodeClassKind(AWS_GROUP, "EC2NodeClass", "v1", "ec2nodeclasses"),
    NodeClassKind("karpenter.kwok.sh", "KWOKNodeClass", "v1alpha1", "kwoknodeclasses"),
)
"""The kinds of the gpu-provisioner and of Karpenter's providers for Azure, AWS and kwok."""

_OF_CLOUD: Final = {"azure": KAITO, "arc": KAITO, "aws": _KNOWN[2]}


class NodeClassSettings(BaseModel):
    """The node class of new NodeClaims. The names of the flags are upstream's, except that of the object's name."""

    model_config = ConfigDict(frozen=True)

    karpenter_node_class_group: str = ""
    """API group of the node class of NodeClaims (default: kaito.sh, the group of gpu-provisioner's class; on AWS
    karpenter.k8s.aws)."""

    karpenter_node_class_kind: str = ""
    """Kind of the node class of NodeClaims (default: the kind of the group's provider)."""

    karpenter_node_class_version: str = ""
    """API version in which the node class is read (default: from the API server's discovery)."""

    karpenter_node_class_resource_name: str = ""
    """Plural name of the node class's kind (default: from the API server's discovery)."""

    karpenter_node_class_name: str = DEFAULT_NAME
    """Name of the node class of Workspaces without an annotation."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Checks the form of each setting, and that group and kind determine each other.

        Raises:
            ValueError: one of them has a wrong form or is missing.
        """
        group, kind, name = (
            self.karpenter_node_class_group,
            self.karpenter_node_class_kind,
            self.karpenter_node_class_name,
        )
        if group and not is_subdomain(group):
            raise ValueError(f"--karpenter-node-class-group={group}: not an API group, such as {AZURE_GROUP}")
        if kind and not NODE_CLASS_KIND_PATTERN.fullmatch(kind):
            raise ValueError(f"--karpenter-node-class-kind={kind}: not a kind, such as AKSNodeClass")
        if not is_subdomain(name):
            raise ValueError(f"--karpenter-node-class-name={name}: not the name of an object")
        if (group or kind) and not (group and kind) and self._known() is None:
            missing = "kind" if group else "group"
            raise ValueError(f"--karpenter-node-class-{missing} is required with {group or kind}")
        if not (group or kind) and (self.karpenter_node_class_version or self.karpenter_node_class_resource_name):
            raise ValueError("--karpenter-node-class-group and -kind are required with -version and -resource-name")
        return self

    def _known(self) -> NodeClassKind | None:
        """Returns the known kind that group and kind, or one of them, denote."""
        group, kind = self.karpenter_node_class_group, self.karpenter_node_class_kind
        return next((known for known in _KNOWN if group in {"", known.group} and kind in {"", known.kind}), None)

    @property
    def is_default(self) -> bool:
        """Whether the kind is that of the cloud."""
        return not (self.karpenter_node_class_group or self.karpenter_node_class_kind)

    def kind_on(self, cloud: str) -> NodeClassKind:
        """Returns the kind of the installation's node class."""
        if self.is_default:
            return _OF_CLOUD[cloud]
        known = self._known()
        return NodeClassKind(
            self.karpenter_node_class_group or (known.group if known else ""),
            self.karpenter_node_class_kind or (known.kind if known else ""),
            self.karpenter_node_class_version or (known.version if known else ""),
            self.karpenter_node_class_resource_name or (known.resource_name if known else ""),
        )

    def reference_for(self, workspace: Workspace, cloud: str) -> NodeClassRef:
        """Returns the node class of the Workspace's new claims.

        Raises:
            ValueError: the annotation has a wrong form, which the preflight checks report before.
        """
        text = workspace.annotations.get(labels.NODE_CLASS)
        if text is not None:
            return NodeClassRef.parse(text)
        kind = self.kind_on(cloud)
        name = workspace.annotations.get(labels.NODE_CLASS_NAME, "").strip().lower()
        return NodeClassRef(group=kind.group, kind=kind.kind, name=name or self.karpenter_node_class_name)

    def kind_of(self, reference: NodeClassRef, cloud: str) -> NodeClassKind:
        """Returns the kind of a reference, with version and resource name if they are known."""
        given = (reference.group, reference.kind)
        for known in (self.kind_on(cloud), *_KNOWN):
            if known[:2] == given:
                return known
        return NodeClassKind(*given)
