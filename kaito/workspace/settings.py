"""Settings of the workspace controller, validated once at start.

`kaito.workspace.flags` builds them from the command line and the environment; the first sentence of a field's
description is the help of its flag. Only `main` reads command line and environment.
"""

from enum import StrEnum
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from kaito.api.references import image_problem
from kaito.workspace.node_class import NodeClassSettings

DEFAULT_REGISTRY: Final = "kaito"
"""Registry and path of the images if none is named."""


class NodeApi(StrEnum):
    """Kind of object that requests a GPU node."""

    MACHINE = "machine"
    """Karpenter `Machine` (karpenter.sh/v1alpha5)."""
    NODECLAIM = "nodeclaim"
    """Karpenter `NodeClaim` (karpenter.sh/v1)."""
    BYO = "byo"
    """No requests ("bring your own"): existing nodes are selected by label."""


class WorkspaceSettings(BaseModel):
    """Settings of the workspace controller; those of every manager are `kaito.runtime.Settings`."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    node_api: NodeApi = NodeApi.MACHINE
    """Kind of node claim to create; byo uses existing nodes."""

    cloud: Literal["azure", "aws", "arc"] = "azure"
    """Cloud whose instance types `resource.instanceType` names (environment variable CLOUD_PROVIDER)."""

    image_registry: str = DEFAULT_REGISTRY
    """Registry and path of the images kaito-serving and kaito-vllm (environment variable IMAGE_REGISTRY, else kaito).
    Their tag is the version of the controller."""

    serving_image: str = ""
    """Image of the transformers server and of tuning, instead of kaito-serving in the image registry."""

    vllm_image: str = ""
    """Image of vLLM, instead of kaito-vllm in the image registry."""

    vllm: bool = True
    """Allow the vLLM runtime (feature gate `vLLM`)."""

    default_node_image_family: Literal["ubuntu", "azurelinux"] = "ubuntu"
    """Operating system of new nodes for Workspaces without the annotation."""

    node_class: NodeClassSettings = NodeClassSettings()
    """Node class of NodeClaims (flags `--karpenter-node-class-*`)."""

    node_provision_timeout_seconds: float = Field(default=900.0, gt=0)
    """Time after which a claim that has not launched is replaced. Karpenter's liveness check uses the same 15 min."""

    node_unhealthy_timeout_seconds: float = Field(default=600.0, ge=0)
    """Time after which a claim with a NotReady node is replaced; 0 disables it."""

    deletion_timeout_seconds: float = Field(default=1200.0, gt=0)
    """Time that the deletion of a Workspace waits for its claims. After it the finalizer is removed, so that a
    provisioner that does not work cannot block the deletion indefinitely."""

    default_inference_cpu: str = "1"
    """CPU request of preset workloads, so that their pods are not the first to be evicted."""

    default_inference_memory: str = "4Gi"
    """Memory request of preset workloads."""

    allow_in_cluster_data_urls: bool = False
    """Allow tuning data to be downloaded from addresses inside the cluster, such as an object store."""

    concurrency: int = Field(default=32, ge=1)
    """Number of Workspaces reconciled concurrently. Reconciles mostly wait for the API server, so a high number costs
    little."""

    installation_guard: bool = True
    """Reject the deletion of the installation while Workspaces or their claims exist."""

    @field_validator("image_registry")
    @classmethod
    def _registry(cls, registry: str) -> str:
        registry = registry.strip().rstrip("/")
        if problem := image_problem(f"{registry}/name:tag"):
            raise ValueError(
                f"{registry!r} is not a registry with a path, such as registry.example.com/kaito: {problem}"
            )
        return registry

    @field_validator("serving_image", "vllm_image")
    @classmethod
    def _image(cls, image: str) -> str:
        if image and (problem := image_problem(image)):
            raise ValueError(problem)
        return image
