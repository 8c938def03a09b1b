"""Every label, annotation, finalizer and taint key that Kaito reads or writes, with its writer and purpose.

Names are those of upstream Kaito v0.12 and Karpenter, so that clusters, dashboards and scripts keep working. All other
modules use these constants instead of the strings.
"""

from collections.abc import Iterable
from typing import Final

# ── ownership ────────────────────────────────────────────────────────────────────────────────────────────────────────

WORKSPACE: Final = "kaito.sh/workspace"
"""Label on claims, agent pools, nodes, pods, Services and Jobs: name of the Workspace that they belong to."""

WORKSPACE_NAMESPACE: Final = "kaito.sh/workspacenamespace"
"""Label on cluster-scoped objects and agent pools: namespace of that Workspace."""

WORKSPACE_UID: Final = "kaito.sh/workspace-uid"
"""Label on claims: UID of the Workspace that they were created for. A new Workspace of the same name does not own
them."""

RAGENGINE: Final = "kaito.sh/ragengine"
"""Label on claims and nodes of a RAGEngine (an upstream kind): its name. gpu-provisioner provisions its claims, too."""

RAGENGINE_NAMESPACE: Final = "kaito.sh/ragenginenamespace"
"""Label on claims and nodes of a RAGEngine: its namespace."""

MANAGED_BY: Final = "kaito.sh/managed-by"
"""Label on agent pools and nodes: the provisioner that created them. Garbage collection ignores pools without it."""

CLAIM_UID: Final = "kaito.sh/claim-uid"
"""Label on agent pools and nodes: UID of the claim that they were created for, because names are reused."""

CLAIM_NAME: Final = "kaito.sh/claim"
"""Label on agent pools and nodes: name of the claim that they were created for."""

CLAIM_KIND: Final = "kaito.sh/claim-kind"
"""Label on agent pools and nodes: `Machine` or `NodeClaim`, because both may exist under one name."""

GPU_PROVISIONER: Final = "gpu-provisioner"
"""Value of `kaito.sh/managed-by` that this project's provisioner writes."""

ARM_OPERATION: Final = "kaito.sh/arm-operation"
"""Annotation on claims: status URL of the cloud operation in progress. Written by gpu-provisioner, so that a restart
continues the operation. Removed when the instance exists."""

LAUNCH_STARTED: Final = "kaito.sh/launch-started"
"""Annotation on claims: RFC 3339 time of the request for the instance, from which the launch timeout counts. Written
and removed together with the operation's URL."""

LAUNCH_RECORD: Final = "kaito.sh/launch-record"
"""Annotation on claims: JSON of failed launch attempts and of the offerings that are unavailable until a time. Written
by gpu-provisioner, so that a restart does not repeat them. Removed when the instance exists."""

RETRY_LAUNCH: Final = "kaito.sh/retry-launch"
"""Annotation on claims, with any value: retry the launch now instead of after the backoff. Removed by
gpu-provisioner."""

CREATED_BY_INFERENCESET: Final = "inferenceset.kaito.sh/created-by"
"""Label on Workspaces and on the pods that serve their requests: name of the InferenceSet that created them."""

INFERENCESET_REVISION: Final = "inferenceset.kaito.sh/revision"
"""Label on Workspaces of an InferenceSet: digest of the template that they were created from or changed to."""

KARPENTER_WORKSPACE: Final = "karpenter.kaito.sh/workspace-name"
"""Label that upstream Kaito's Karpenter mode sets on nodes. Reserved."""

KARPENTER_WORKSPACE_NAMESPACE: Final = "karpenter.kaito.sh/workspace-namespace"
"""Label of upstream's Karpenter mode: namespace of that Workspace. Reserved."""

KARPENTER_INFERENCESET: Final = "karpenter.kaito.sh/inferenceset"
"""Label of upstream's Karpenter mode: name of the InferenceSet. Reserved."""

KARPENTER_INFERENCESET_NAMESPACE: Final = "karpenter.kaito.sh/inferenceset-namespace"
"""Label of upstream's Karpenter mode: namespace of that InferenceSet. Reserved."""

# ── nodes ────────────────────────────────────────────────────────────────────────────────────────────────────────────

INSTANCE_TYPE: Final = "node.kubernetes.io/instance-type"
"""Well-known node label and claim requirement: the cloud's name of the instance type."""

ARCH: Final = "kubernetes.io/arch"
"""Well-known node label and claim requirement: processor architecture, `amd64`."""

OS: Final = "kubernetes.io/os"
"""Well-known node label and claim requirement: operating system, `linux`."""

ZONE: Final = "topology.kubernetes.io/zone"
"""Well-known node label: availability zone."""

REGION: Final = "topology.kubernetes.io/region"
"""Well-known node label: region."""

HOSTNAME: Final = "kubernetes.io/hostname"
"""Well-known node label: host name. Claims cannot require it."""

INSTALLATION: Final = "kaito.sh/installation"
"""Label of every object that `config/default` installs. With value `true` the API server rejects its deletion while
Workspaces exist."""

MACHINE_TYPE: Final = "kaito.sh/machine-type"
"""Label on agent pools and nodes, and requirement of Machines: `gpu` or `cpu`. Written by gpu-provisioner."""

CREATION_TIMESTAMP: Final = "kaito.sh/creation-timestamp"
"""Label on agent pools and nodes: the claim's creation time in UTC as `YYYY-MM-DDTHH-MM-SSZ`, because label values
cannot contain colons."""

ACCELERATOR: Final = "accelerator"
"""Node label that the NVIDIA device plugin's DaemonSet selects; value `nvidia`. Written by the workspace controller."""

ACCELERATOR_NVIDIA: Final = "nvidia"
"""Value of `accelerator`."""

AGENT_POOL: Final = "agentpool"
"""Node label written by AKS: name of the agent pool."""

AZURE_AGENT_POOL: Final = "kubernetes.azure.com/agentpool"
"""Node label written by AKS, newer name of `agentpool`."""

AZURE_SKU_NAME: Final = "karpenter.azure.com/sku-name"
"""Requirement of NodeClaims for Azure: the instance type under the name of Azure's Karpenter provider."""

GPU_PRODUCT: Final = "nvidia.com/gpu.product"
"""Node label of GPU feature discovery: name of the GPU, words joined by dashes."""

GPU_COUNT: Final = "nvidia.com/gpu.count"
"""Node label of GPU feature discovery: number of GPUs."""

GPU_MEMORY: Final = "nvidia.com/gpu.memory"
"""Node label of GPU feature discovery: memory of one GPU in MiB."""

GPU_REPLICAS: Final = "nvidia.com/gpu.replicas"
"""Node label of GPU feature discovery: number of pods that the device plugin lets use one GPU at the same time."""

CUDA_MAJOR: Final = "nvidia.com/cuda.compute.major"
"""Node label of GPU feature discovery: major version of the compute capability."""

CUDA_MINOR: Final = "nvidia.com/cuda.compute.minor"
"""Node label of GPU feature discovery: minor version of the compute capability."""

NVIDIA_GPU: Final = "nvidia.com/gpu"
"""Extended resource of the NVIDIA device plugin, and key of the taint that clouds set on GPU nodes."""

AMD_GPU: Final = "amd.com/gpu"
"""Extended resource of the AMD device plugin."""

NEURON_DEVICE: Final = "aws.amazon.com/neuron"
"""Extended resource of the AWS Neuron device plugin (Trainium, Inferentia)."""

# ── Karpenter ────────────────────────────────────────────────────────────────────────────────────────────────────────

NODEPOOL: Final = "karpenter.sh/nodepool"
"""Label and requirement of a NodeClaim. Kaito's claims have the value `kaito`: a NodePool that does not exist, or that
has the limit 0, so that Karpenter creates no nodes for it."""

NODEPOOL_KAITO: Final = "kaito"
"""Value of `karpenter.sh/nodepool` on Kaito's claims."""

PROVISIONER_NAME: Final = "karpenter.sh/provisioner-name"
"""Label and requirement of a Machine (Karpenter before v1). Kaito's Machines have the value `default`."""

PROVISIONER_DEFAULT: Final = "default"
"""Value of `karpenter.sh/provisioner-name` on Kaito's Machines."""

CAPACITY_TYPE: Final = "karpenter.sh/capacity-type"
"""Label: `spot`, `on-demand` or `reserved`."""

REGISTERED: Final = "karpenter.sh/registered"
"""Node label, `true` after the provisioner has registered the node."""

INITIALIZED: Final = "karpenter.sh/initialized"
"""Node label, `true` after the node is initialized: Ready, with all resources that its claim requests."""

DO_NOT_SYNC_TAINTS: Final = "karpenter.sh/do-not-sync-taints"
"""Node label, `true`: registration does not change the node's taints."""

DO_NOT_DISRUPT: Final = "karpenter.sh/do-not-disrupt"
"""Annotation `true` on claims (Karpenter does not consolidate them) and on pods (they are not evicted)."""

TERMINATION_TIMESTAMP: Final = "karpenter.sh/nodeclaim-termination-timestamp"
"""Annotation on a terminating claim: RFC 3339 time after which the node's remaining pods are force-deleted."""

EXCLUDE_FROM_LOAD_BALANCERS: Final = "node.kubernetes.io/exclude-from-external-load-balancers"
"""Node label with value `karpenter`, set while the node is terminated."""

TERMINATION_FINALIZER: Final = "karpenter.sh/termination"
"""Finalizer on claims and on their nodes: the cloud's instance is deleted before the object."""

TAINT_DISRUPTED: Final = "karpenter.sh/disrupted"
"""Taint (NoSchedule) on a node that is being terminated."""

TAINT_UNREGISTERED: Final = "karpenter.sh/unregistered"
"""Taint (NoExecute) of a new node, which registration removes."""

TAINT_SKU: Final = "sku"
"""Taint key on Kaito's GPU nodes: `sku=gpu:NoSchedule`, so that only pods with a toleration are scheduled on them."""

TAINT_SKU_GPU: Final = "gpu"
"""Value of the taint `sku`."""

# ── Workspace: finalizer and revision ────────────────────────────────────────────────────────────────────────────────

WORKSPACE_FINALIZER: Final = "workspace.kaito.sh/finalizer"
"""Finalizer on Workspaces: claims and nodes are deleted before the Workspace."""

LEGACY_WORKSPACE_FINALIZER: Final = "workspace.finalizer.kaito.sh"
"""Upstream Kaito's finalizer on Workspaces. The controller also removes it."""

INFERENCESET_FINALIZER: Final = "inferenceset.kaito.sh/finalizer"
"""Finalizer on InferenceSets: their Workspaces are deleted before the InferenceSet."""

LEGACY_INFERENCESET_FINALIZER: Final = "inferenceset.finalizer.kaito.sh"
"""Upstream Kaito's finalizer on InferenceSets. The controller also removes it."""

REVISION: Final = "workspace.kaito.io/revision"
"""Annotation of upstream Kaito on Workspaces and workloads. The controller reads it on Workspaces: they
keep the number of nodes that upstream computed for them."""

CLAIM_INDEX: Final = "kaito.sh/claim-index"
"""Annotation on claims: index of the node in the Workspace, counted from 0."""

GPU_INSTANCE_PROFILE: Final = "kaito.sh/gpu-instance-profile"
"""Annotation on claims: `gpuInstanceProfile` of the agent pool, `MIG1g`, `MIG2g`, `MIG3g`, `MIG4g` or `MIG7g`. Divides
every GPU of the node into slices, whose resource and number the claim requests."""

PREFERRED: Final = "kaito.sh/preferred-node"
"""Label `true` on nodes that a Workspace uses by `preferredNodes`. They are not deleted with the Workspace."""

PROVISION_ATTEMPTS: Final = "kaito.sh/provision-attempts"
"""Annotation on Workspaces: JSON record of lost claims and their replacements. Written by the workspace controller, so
that a restart keeps the backoff and creates no claim twice."""

ALTERNATIVES: Final = "kaito.sh/alternatives"
"""Annotation on Workspaces with `resource.instanceTypes`: JSON record of the chosen instance type, and of offerings
that were unavailable with the time at which each is tried again. Written by the workspace controller."""

APPLIED: Final = "kaito.sh/applied"
"""Annotation on Services, workloads and other objects of a Workspace: digest of the fields that the workspace
controller has applied. A new leader writes only what differs from it, or was changed by others."""

RESERVATION: Final = "kaito.sh/reservation"
"""Annotation on Workspaces of a namespace with a budget: JSON of the nodes that the Workspace has or is about to buy.
Written by the workspace controller before it creates claims."""

HOURLY_BUDGET: Final = "kaito.sh/hourly-budget"
"""Annotation on namespaces, set by administrators: the most that the nodes of all its Workspaces may cost per hour, for
example `12.50`, in the currency of the price table."""

TEMPLATE_HASH: Final = "kaito.sh/template-hash"
"""Annotation on workloads: digest of the rendered pod template."""

INPUTS_HASH: Final = "kaito.sh/inputs-hash"
"""Annotation on tuning Jobs: digest of the fields of the Workspace. A Job is replaced if they change. On StatefulSets
of InferenceSets: digest of what the user determines. While it is the same, a changed template waits for the set."""

UPGRADE_TO: Final = "kaito.sh/upgrade-to"
"""Annotation on Workspaces of an InferenceSet: digest of the pod template that may be applied now. Written by the
controller of InferenceSets during an upgrade to a new release."""

WEIGHTS: Final = "kaito.sh/weights"
"""Annotation on workloads: JSON of the source of the weights. While the Workspace requests the same, the workload keeps
it."""

TRACEPARENT: Final = "kaito.sh/traceparent"
"""Annotation on Workspaces, InferenceSets and claims: W3C trace context of the trace of the object. Set at admission
or by the first reconcile if tracing is configured; one that a client sets is kept. Claims have that of their
Workspace."""

TRACE_ENVIRONMENT: Final = "kaito.sh/trace-environment"
"""Annotation on workloads: JSON of the environment variables for tracing that their pods have. A workload keeps those
that it was created with."""

GROUP_ROLE: Final = "kaito.sh/group-role"
"""Label on the pods of a copy that is divided over several nodes: `leader` serves requests, `worker` does not."""

LEADER: Final = "leader"
WORKER: Final = "worker"

GROUP_HASH: Final = "kaito.sh/group-hash"
"""Annotation on the pod template of leaders: digest of the workers' template, so that a change replaces both."""

CONFIG_HASH: Final = "kaito.sh/config-hash"
"""Annotation on pod templates: digest of the ConfigMap that the pods mount, so that an edit replaces the pods."""

ACTIVATOR: Final = "kaito.sh/activator"
"""Label on EndpointSlices: `address` on those of the Service of the activator, with its pods, and `workspace` on those
that the controller adds to the Services of Workspaces which may have no copies."""

ACTIVATOR_ADDRESS: Final = "address"
ACTIVATOR_WORKSPACE: Final = "workspace"

SERVICE_NAME: Final = "kubernetes.io/service-name"
"""Kubernetes' label on EndpointSlices: the Service that they belong to."""

ENDPOINTS_MANAGED_BY: Final = "endpointslice.kubernetes.io/managed-by"
"""Kubernetes' label on EndpointSlices: the program that writes them. Other controllers leave them unchanged."""

ACTIVATOR_SINCE: Final = "kaito.sh/activator-since"
"""Annotation on the EndpointSlice of a Workspace: since when it contains the pods of the activator."""

# ── Workspace: annotations a user may set ────────────────────────────────────────────────────────────────────────────

ENABLE_LOAD_BALANCER: Final = "kaito.sh/enablelb"
"""`true` (any case): the Service is of type LoadBalancer. For evaluation only, because there is no authentication."""

RUNTIME: Final = "kaito.sh/runtime"
"""`transformers` or `vllm`; absent lets the controller choose by model and GPU."""

BYPASS_RESOURCE_CHECKS: Final = "kaito.sh/bypass-resource-checks"
"""`true` (any case): a model that is estimated too large for the instance type is a warning instead of an error."""

PERFORMANCE_MODE: Final = "kaito.sh/performance-mode"
"""`throughput`, `interactivity` or `balanced` (the default): value of vLLM's flag `--performance-mode`."""

NODE_IMAGE_FAMILY: Final = "kaito.sh/node-image-family"
"""`ubuntu` or `azurelinux` (any case): operating system of new nodes. Copied to the claim's annotations."""

NODE_COUNT_OVERRIDE: Final = "kaito.sh/node-count-override"
"""A positive number: the number of nodes, instead of `resource.count` copies. A multiple of the nodes of one copy. Like
`resource.count`, it holds while `spec.replicas` is not set, and a change also sets `spec.replicas`."""

DISABLE_BENCHMARK: Final = "kaito.sh/disable-benchmark"
"""`true` or `false` (any case). This controller runs no benchmark, so the value has no effect."""

USE_LOCAL_WEIGHTS: Final = "kaito.sh/use-local-weights"
"""`false` only: weights on the disks of nodes, as upstream Kaito mounts them, are not supported."""

MODEL_STREAMING: Final = "kaito.sh/model-streaming"
"""`disabled` only: weights are not streamed from object storage."""

REPLAN: Final = "kaito.sh/replan"
"""Any value: use the first possible entry of `resource.instanceTypes` now, although nodes of another one exist. These
are deleted first, so that the model is not served meanwhile. Removed by the workspace controller."""

NODE_CLASS: Final = "kaito.sh/node-class"
"""Node class of the Workspace's new NodeClaims as `group/kind/name`, for example
`karpenter.azure.com/AKSNodeClass/gpu`. Claims that exist keep theirs."""

NODE_CLASS_NAME: Final = "kaito.sh/node-class-name"
"""Upstream Kaito's annotation: name of a node class of the kind that the flags of the controller set. `default` only
if that kind is KaitoNodeClass, which has no objects."""

MODEL_MIRROR_STORAGE_CLASS: Final = "kaito.sh/model-mirror-storage-class"
"""Upstream Kaito's model mirror, which is not supported: rejected."""

STREAMING_SERVICE_ACCOUNT: Final = "kaito.sh/streaming-service-account"
"""Upstream Kaito's model streaming, which is not supported: rejected."""

TRUE: Final = "true"
"""Value of an enabled label or annotation. It is read in any case; see `is_true`."""

RESERVED_KEYS: Final = frozenset(
    {
        WORKSPACE,
        WORKSPACE_NAMESPACE,
        RAGENGINE,
        RAGENGINE_NAMESPACE,
        MANAGED_BY,
        CLAIM_UID,
        CLAIM_NAME,
        CLAIM_KIND,
        WORKSPACE_UID,
        INSTALLATION,
        CREATED_BY_INFERENCESET,
        INFERENCESET_REVISION,
        ACTIVATOR,
        GROUP_ROLE,
        PREFERRED,
        MACHINE_TYPE,
        CREATION_TIMESTAMP,
        KARPENTER_WORKSPACE,
        KARPENTER_WORKSPACE_NAMESPACE,
        KARPENTER_INFERENCESET,
        KARPENTER_INFERENCESET_NAMESPACE,
    }
)
"""Label keys that the controllers own. A user's selector cannot use them."""

RESERVED_DOMAINS: Final = ("karpenter.sh", "karpenter.kaito.sh")
"""Label domains of Karpenter. With `karpenter.sh/nodepool` in a selector, another Karpenter would adopt the claim."""

ADMINISTRATOR_DOMAINS: Final = ("node-restriction.kubernetes.io", "node-role.kubernetes.io")
"""Label domains of administrators, with those below them: Kubernetes recommends labels such as
`example.com.node-restriction.kubernetes.io/fips`."""

_CLOUD_LABELS: Final = frozenset({"accelerator", "agentpool", "storageprofile", "storagetier"})
"""Keys without a domain that Azure Kubernetes Service sets on its nodes ("Use labels in an AKS cluster")."""


def is_set_by_others(key: str) -> bool:
    """Whether a kubelet, a cloud or a discovery agent may set this label on a new node.

    All of them use keys with a domain, except a few of Azure. A new node has other labels only if the claim sets them.
    """
    return "/" in key or key in _CLOUD_LABELS


def is_true(value: str | None) -> bool:
    """Whether a label or annotation is `true`, in any case. Every other value, and a missing one, is false."""
    return value is not None and value.strip().lower() == TRUE


def is_in_domains(key: str, domains: Iterable[str]) -> bool:
    """Whether the domain of a key is one of these or below one of them."""
    domain, slash, _ = key.rpartition("/")
    return bool(slash) and any(domain == each or domain.endswith(f".{each}") for each in domains)


def is_own(key: str) -> bool:
    """Whether the domain of a key is `kaito.sh` or below it."""
    return is_in_domains(key, ("kaito.sh",))


def is_of_administrators(key: str) -> bool:
    """Whether administrators separate nodes by a label, so that a user's selector cannot set it on new nodes."""
    return is_in_domains(key, ADMINISTRATOR_DOMAINS)


def is_reserved(key: str) -> bool:
    """Whether a label key is reserved, so that a user's selector cannot use it."""
    return key in RESERVED_KEYS or key.partition("/")[0] in RESERVED_DOMAINS
