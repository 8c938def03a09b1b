"""Settings of the workspace controller, validated once at start.

`kaito.workspace.flags` builds them from the command line and the environment; the first sentence of a field's
description is the help of its flag. Only `main` reads command line and environment.
"""

from enum import StrEnum
from pathlib import PurePosixPath
from typing import Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from kaito.api.object_names import is_subdomain
from kaito.api.references import image_problem
from kaito.api.workspace import PodOptions, WeightsSource
from kaito.models.partitions import MigStrategy
from kaito.models.weights import WeightsDefaults
from kaito.workspace.node_class import NodeClassSettings

DEFAULT_HUB: Final = "https://huggingface.co"

DEFAULT_REGISTRY: Final = "kaito"
"""Registry and path of the images if none is named."""


DEFAULT_ACTIVATOR_PORT: Final = 20000
"""First port of the activator: above those of servers, and below the ephemeral ports of Linux."""


class NodeApi(StrEnum):
    """Kind of object that requests a GPU node."""

    MACHINE = "machine"
    """Karpenter `Machine` (karpenter.sh/v1alpha5)."""
    NODECLAIM = "nodeclaim"
    """Karpenter `NodeClaim` (karpenter.sh/v1)."""
    KARPENTER = "karpenter"
    """Karpenter `NodePool` (karpenter.sh/v1), one for each Workspace; Karpenter creates the NodeClaims."""
    BYO = "byo"
    """No requests ("bring your own"): existing nodes are selected by label."""


class WorkspaceSettings(BaseModel):
    """Settings of the workspace controller; those of every manager are `kaito.runtime.Settings`."""

    model_config = ConfigDict(frozen=True)

    node_api: NodeApi = NodeApi.MACHINE
    """Kind of object that requests nodes: machine, nodeclaim, or karpenter for NodePools; byo uses existing nodes."""

    cloud: Literal["azure", "aws", "arc"] = "azure"
    """Cloud whose instance types `resource.instanceType` names (environment variable CLOUD_PROVIDER)."""

    region: str = ""
    """Region of the cluster's nodes, for the prices in warnings of admission and in `kaito plan`."""

    image_registry: str = DEFAULT_REGISTRY
    """Registry and path of the images kaito-serving and kaito-vllm (environment variable IMAGE_REGISTRY, else kaito).
    Their tag is the version of the controller."""

    serving_image: str = ""
    """Image of the transformers server and of tuning, instead of kaito-serving in the image registry."""

    vllm_image: str = ""
    """Image of vLLM, instead of kaito-vllm in the image registry."""

    model_registry: str = ""
    """Registry and path of artifacts with weights, named after the preset (environment variable MODEL_REGISTRY). The
    tag is that of the catalog, else `latest`."""

    hub_endpoint: str = DEFAULT_HUB
    """Address of Hugging Face, or of a mirror, for models outside the catalog (environment variable HF_ENDPOINT). Pods
    download from it, too. Empty forbids the controller to read models."""

    weights_source: WeightsSource = "Auto"
    """Source of the weights for Workspaces that do not name one."""

    node_cache_directory: str = ""
    """Directory of the nodes that keeps weights for the source NodeCache. A hostPath volume, which Pod Security
    `baseline` and `restricted` forbid."""

    vllm: bool = True
    """Allow the vLLM runtime (feature gate `vLLM`)."""

    default_node_image_family: Literal["ubuntu", "azurelinux"] = "ubuntu"
    """Operating system of new nodes for Workspaces without the annotation."""

    mig_strategy: MigStrategy = "single"
    """How the device plugin of new nodes advertises slices of GPUs, for `resource.partition`: as nvidia.com/gpu
    (single), or each profile as a resource of its own (mixed)."""

    node_class: NodeClassSettings = NodeClassSettings()
    """Node class of NodeClaims (flags `--karpenter-node-class-*`)."""

    node_provision_timeout_seconds: float = Field(default=900.0, gt=0)
    """Time after which a claim that has not launched is replaced. Karpenter's liveness check uses the same 15 min."""

    node_unhealthy_timeout_seconds: float = Field(default=600.0, ge=0)
    """Time after which a claim with a NotReady node is replaced; 0 disables it."""

    deletion_timeout_seconds: float = Field(default=1200.0, gt=0)
    """Time that the deletion of a Workspace waits for its claims. After it the finalizer is removed, so that a
    provisioner that does not work cannot block the deletion indefinitely."""

    pod_defaults: PodOptions = Field(default_factory=PodOptions)
    """Defaults of `podOptions` for the pods of all presets (file of the flag `--pod-defaults`)."""

    default_inference_cpu: str = "1"
    """CPU request of preset workloads, so that their pods are not the first to be evicted."""

    default_inference_memory: str = "4Gi"
    """Memory request of preset workloads."""

    allow_in_cluster_data_urls: bool = False
    """Allow tuning data to be downloaded from addresses inside the cluster, such as an object store."""

    inference_gateway: str = ""
    """Gateway (`namespace/name`) to which InferenceSets are published with an InferencePool and an HTTPRoute."""

    endpoint_picker: str = "{name}-epp"
    """Service of the endpoint picker of an InferenceSet, in its namespace; `{name}` is the name of the set."""

    tracing_endpoint: str = ""
    """Collector to which the pods of new workloads send spans: that of the controller (flag `--tracing-endpoint`,
    environment variable OTEL_EXPORTER_OTLP_ENDPOINT)."""

    namespace: str = ""
    """Namespace of the controller, which keeps what servers measured there (environment variable POD_NAMESPACE).
    Nothing is kept if it is empty."""

    concurrency: int = Field(default=32, ge=1)
    """Number of Workspaces reconciled concurrently. Reconciles mostly wait for the API server, so a high number costs
    little."""

    activator_port: int = Field(default=DEFAULT_ACTIVATOR_PORT, ge=1024, le=60535)
    """First of the 5000 ports on which the activator listens, one for each Workspace that scales to zero."""

    installation_guard: bool = True
    """Reject the deletion of the installation while Workspaces or their claims exist."""

    @property
    def weights(self) -> WeightsDefaults:
        """The settings that select the source of weights."""
        return WeightsDefaults(
            source=self.weights_source,
            model_registry=self.model_registry,
            cache_directory=self.node_cache_directory,
        )

    @field_validator("node_cache_directory")
    @classmethod
    def _directory(cls, directory: str) -> str:
        path = PurePosixPath(directory)
        if directory and (not path.is_absolute() or ".." in path.parts or len(path.parts) < 3):
            raise ValueError(
                f"{directory!r} is not a directory for the cache alone: use an absolute path such as /var/cache/kaito"
            )
        return directory and str(path)

    @field_validator("hub_endpoint")
    @classmethod
    def _endpoint(cls, endpoint: str) -> str:
        endpoint = endpoint.strip().rstrip("/")
        parts = urlsplit(endpoint)
        if endpoint and (parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.username):
            raise ValueError(f"{endpoint!r} is not the address of a hub: use one such as {DEFAULT_HUB}")
        return endpoint

    @field_validator("inference_gateway")
    @classmethod
    def _gateway(cls, gateway: str) -> str:
        namespace, slash, name = gateway.partition("/")
        if gateway and not (slash and is_subdomain(namespace) and is_subdomain(name)):
            raise ValueError(f"{gateway!r} is not a Gateway: use namespace/name")
        return gateway

    @field_validator("endpoint_picker")
    @classmethod
    def _picker(cls, picker: str) -> str:
        if not is_subdomain(picker.replace("{name}", "name")):
            raise ValueError(f"{picker!r} is not the name of a Service: use one such as {{name}}-epp")
        return picker

    @field_validator("image_registry", "model_registry")
    @classmethod
    def _registry(cls, registry: str) -> str:
        registry = registry.strip().rstrip("/")
        if not registry:
            return registry
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
