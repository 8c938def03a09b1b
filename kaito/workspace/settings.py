"""What the workspace controller can be told, validated once.

`kaito.workspace.flags` builds it from the command line and the environment, tests build it by hand; nothing below
`main` reads either. Durations are seconds.
"""

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class NodeApi(StrEnum):
    """How GPU nodes are asked for."""

    MACHINE = "machine"
    """Karpenter `Machine` (karpenter.sh/v1alpha5), the founding contract."""
    NODECLAIM = "nodeclaim"
    """Karpenter `NodeClaim` (karpenter.sh/v1)."""
    BYO = "byo"
    """Nothing is asked for: the nodes exist ("bring your own") and are found by label."""


class WorkspaceSettings(BaseModel):
    """Settings of the controller itself; those every manager has are `kaito.runtime.Settings`."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    node_api: NodeApi = NodeApi.MACHINE
    """How nodes are asked for."""

    cloud: Literal["azure", "aws", "arc"] = "azure"
    """Whose instance types `resource.instanceType` names (environment `CLOUD_PROVIDER`)."""

    registry: str = "mcr.microsoft.com/aks/kaito"
    """Where preset images are pulled from (environment `PRESET_REGISTRY_NAME`)."""

    vllm: bool = True
    """Whether the vLLM runtime may be chosen (feature gate `vLLM`)."""

    default_node_image_family: Literal["ubuntu", "azurelinux"] = "ubuntu"
    """Operating system of new nodes when the Workspace does not say."""

    node_provision_timeout: float = Field(default=900.0, gt=0)
    """A claim not launched after this long is replaced. Karpenter's liveness uses the same 15 minutes."""

    node_unhealthy_timeout: float = Field(default=600.0, ge=0)
    """A claim whose node has been NotReady for this long is replaced; 0 leaves it alone."""

    deletion_timeout: float = Field(default=1200.0, gt=0)
    """Deletion stops waiting for claims after this long, so that a broken provisioner cannot pin a Workspace."""

    default_inference_cpu: str = "1"
    """CPU request of inference and tuning containers, so that they are not the first to be evicted."""

    default_inference_memory: str = "4Gi"
    """Memory request of the same containers."""

    allow_in_cluster_data_urls: bool = False
    """Whether tuning data may be downloaded from addresses inside the cluster, such as an object store."""

    concurrency: int = Field(default=32, ge=1)
    """Workspaces reconciled at the same time; they mostly wait for the API server, which costs nothing."""

    installation_guard: bool = True
    """Refuse deleting the installation while Workspaces or their claims exist (`kaito.workspace.in_use_policy`)."""
