"""Every label, annotation, finalizer and taint key that Kaito reads or writes, each with who writes it and why.

Names follow upstream Kaito v0.12 and Karpenter so that clusters, dashboards and scripts keep working. Both managers
import from here; nothing else may spell these strings.
"""

from typing import Final

# ── ownership ────────────────────────────────────────────────────────────────────────────────────────────────────────

WORKSPACE: Final = "kaito.sh/workspace"
"""Label on claims, pools, nodes, pods, Services and Jobs: name of the Workspace they belong to."""

WORKSPACE_NAMESPACE: Final = "kaito.sh/workspacenamespace"
"""Label on cluster-scoped things (claims, pools, nodes): namespace of that Workspace."""

WORKSPACE_UID: Final = "kaito.sh/workspace-uid"
"""Label on claims: UID of the Workspace they were made for, so that one created again under the old name inherits
nothing."""

RAGENGINE: Final = "kaito.sh/ragengine"
"""Label on claims and nodes of a RAGEngine: its name. Upstream's kind; a claim that carries it is ours to provision."""

RAGENGINE_NAMESPACE: Final = "kaito.sh/ragenginenamespace"
"""Label on claims and nodes of a RAGEngine: its namespace."""

MANAGED_BY: Final = "kaito.sh/managed-by"
"""Label on agent pools and nodes: which provisioner made them. Garbage collection touches nothing without it."""

CLAIM_UID: Final = "kaito.sh/claim-uid"
"""Label on agent pools and nodes: UID of the claim they were made for, so that a reused name is no confusion."""

CLAIM_NAME: Final = "kaito.sh/claim"
"""Label on agent pools and nodes: name of the claim they were made for."""

CLAIM_KIND: Final = "kaito.sh/claim-kind"
"""Label on agent pools and nodes: `Machine` or `NodeClaim`, because both may exist under one name."""

GPU_PROVISIONER: Final = "gpu-provisioner"
"""Value of `kaito.sh/managed-by` that this project's provisioner writes."""

ARM_OPERATION: Final = "kaito.sh/arm-operation"
"""Annotation on claims: status address of the cloud operation under way. Written by gpu-provisioner, so that a
restart goes on where it was. Removed when the instance is there."""

LAUNCH_STARTED: Final = "kaito.sh/launch-started"
"""Annotation on claims: RFC3339 time at which the cloud was asked for the instance; the launch deadline counts from it.
Written and removed with the operation's address."""

LAUNCH_RECORD: Final = "kaito.sh/launch-record"
"""Annotation on claims: failed launch attempts, what the cloud refused and until when, as JSON. Written by
gpu-provisioner, so that a restart repeats nothing that cost money. Removed when the instance is there."""

RETRY_LAUNCH: Final = "kaito.sh/retry-launch"
"""Annotation on claims, with any value: try the launch again now, without waiting for the end of the pause.
gpu-provisioner removes it."""

CREATED_BY_INFERENCESET: Final = "inferenceset.kaito.sh/created-by"
"""Label on Workspaces and their pods: name of the InferenceSet that made them (upstream's kind)."""

KARPENTER_WORKSPACE: Final = "karpenter.kaito.sh/workspace-name"
"""Label that upstream Kaito's Karpenter mode puts on nodes. Reserved."""

KARPENTER_WORKSPACE_NAMESPACE: Final = "karpenter.kaito.sh/workspace-namespace"
"""Its namespace. Reserved."""

KARPENTER_INFERENCESET: Final = "karpenter.kaito.sh/inferenceset"
"""The same for upstream's InferenceSet. Reserved."""

KARPENTER_INFERENCESET_NAMESPACE: Final = "karpenter.kaito.sh/inferenceset-namespace"
"""Its namespace. Reserved."""

# ── nodes ────────────────────────────────────────────────────────────────────────────────────────────────────────────

INSTANCE_TYPE: Final = "node.kubernetes.io/instance-type"
"""Well-known node label and claim requirement: the cloud's name of the machine size."""

ARCH: Final = "kubernetes.io/arch"
"""Well-known node label and claim requirement: processor architecture, `amd64`."""

OS: Final = "kubernetes.io/os"
"""Well-known node label and claim requirement: operating system, `linux`."""

ZONE: Final = "topology.kubernetes.io/zone"
"""Well-known node label: availability zone."""

REGION: Final = "topology.kubernetes.io/region"
"""Well-known node label: region."""

HOSTNAME: Final = "kubernetes.io/hostname"
"""Well-known node label: host name. Claims may not require one."""

INSTALLATION: Final = "kaito.sh/installation"
"""Label of every object that `config/default` installs; `true` has the API server refuse its deletion while Workspaces
exist."""

MACHINE_TYPE: Final = "kaito.sh/machine-type"
"""Label on pools and nodes, and requirement on Machines: `gpu` or `cpu`. Written by gpu-provisioner."""

CREATION_TIMESTAMP: Final = "kaito.sh/creation-timestamp"
"""Label on pools and nodes: the claim's creation time, UTC, `YYYY-MM-DDTHH-MM-SSZ` (colons are illegal in values)."""

ACCELERATOR: Final = "accelerator"
"""Node label that the NVIDIA device plugin's DaemonSet selects; value `nvidia`. Written by the workspace controller."""

ACCELERATOR_NVIDIA: Final = "nvidia"
"""Value of `accelerator`."""

AGENT_POOL: Final = "agentpool"
"""Node label written by AKS: name of the agent pool."""

AZURE_AGENT_POOL: Final = "kubernetes.azure.com/agentpool"
"""Node label written by AKS, newer spelling of `agentpool`."""

AZURE_SKU_NAME: Final = "karpenter.azure.com/sku-name"
"""Requirement on NodeClaims for Azure: the VM size once more, as Azure's Karpenter spells it."""

GPU_PRODUCT: Final = "nvidia.com/gpu.product"
"""Node label of GPU feature discovery: name of the GPU, words joined by dashes."""

GPU_COUNT: Final = "nvidia.com/gpu.count"
"""Node label of GPU feature discovery: number of GPUs."""

GPU_MEMORY: Final = "nvidia.com/gpu.memory"
"""Node label of GPU feature discovery: memory of one GPU in MiB."""

CUDA_MAJOR: Final = "nvidia.com/cuda.compute.major"
"""Node label of GPU feature discovery: compute capability, before the point."""

CUDA_MINOR: Final = "nvidia.com/cuda.compute.minor"
"""The same, behind the point."""

NVIDIA_GPU: Final = "nvidia.com/gpu"
"""Extended resource of the NVIDIA device plugin, and key of the taint clouds put on GPU nodes."""

AMD_GPU: Final = "amd.com/gpu"
"""Extended resource of the AMD device plugin."""

NEURON_DEVICE: Final = "aws.amazon.com/neuron"
"""Extended resource of the AWS Neuron device plugin (Trainium, Inferentia)."""

# ── Karpenter ────────────────────────────────────────────────────────────────────────────────────────────────────────

NODEPOOL: Final = "karpenter.sh/nodepool"
"""Label and requirement of a NodeClaim; Kaito's claims say `kaito`, a pool that does not exist, so that a Karpenter
installed beside us leaves them alone."""

NODEPOOL_KAITO: Final = "kaito"
"""Value of `karpenter.sh/nodepool` on our claims."""

PROVISIONER_NAME: Final = "karpenter.sh/provisioner-name"
"""Label and requirement of a Machine (Karpenter before v1); Kaito's Machines say `default`."""

PROVISIONER_DEFAULT: Final = "default"
"""Value of `karpenter.sh/provisioner-name` on our Machines."""

CAPACITY_TYPE: Final = "karpenter.sh/capacity-type"
"""Label: `spot`, `on-demand` or `reserved`."""

REGISTERED: Final = "karpenter.sh/registered"
"""Node label `true` once the provisioner has matched the node with its claim."""

INITIALIZED: Final = "karpenter.sh/initialized"
"""Node label `true` once the node is Ready with everything its claim asked for."""

DO_NOT_SYNC_TAINTS: Final = "karpenter.sh/do-not-sync-taints"
"""Node label `true`: registration leaves the node's taints alone."""

DO_NOT_DISRUPT: Final = "karpenter.sh/do-not-disrupt"
"""Annotation `true` on claims (Karpenter must not consolidate them) and on pods (not to be evicted)."""

TERMINATION_TIMESTAMP: Final = "karpenter.sh/nodeclaim-termination-timestamp"
"""Annotation on a deleting claim: RFC 3339 time after which the node's remaining pods are deleted by force."""

EXCLUDE_FROM_LOAD_BALANCERS: Final = "node.kubernetes.io/exclude-from-external-load-balancers"
"""Node label set while the node is terminated, value `karpenter`."""

TERMINATION_FINALIZER: Final = "karpenter.sh/termination"
"""Finalizer on claims and on their nodes: the cloud's machine goes before the object does."""

TAINT_DISRUPTED: Final = "karpenter.sh/disrupted"
"""Taint (NoSchedule) on a node that is being terminated."""

TAINT_UNREGISTERED: Final = "karpenter.sh/unregistered"
"""Taint (NoExecute) a new node may carry until registration removes it."""

TAINT_SKU: Final = "sku"
"""Taint key on Kaito's GPU nodes: `sku=gpu:NoSchedule`, so that only workloads that tolerate it land there."""

TAINT_SKU_GPU: Final = "gpu"
"""Value of the taint `sku`."""

# ── Workspace: finalizer and revision ────────────────────────────────────────────────────────────────────────────────

WORKSPACE_FINALIZER: Final = "workspace.kaito.sh/finalizer"
"""Finalizer on Workspaces: claims and nodes go before the Workspace does. Domain-qualified, as the API server asks."""

LEGACY_WORKSPACE_FINALIZER: Final = "workspace.finalizer.kaito.sh"
"""Upstream Kaito's finalizer on Workspaces. A Workspace taken over from it is released from it, too."""

REVISION: Final = "workspace.kaito.io/revision"
"""Annotation on Workspaces and workloads: decimal number of the revision they were rendered from."""

REVISION_HASH: Final = "workspace.kaito.io/hash"
"""Annotation on Workspaces and ControllerRevisions: SHA-256 of everything that shapes the workload."""

REVISION_NAME: Final = "workspace.kaito.io/name"
"""Label on ControllerRevisions: name of the Workspace."""

CLAIM_INDEX: Final = "kaito.sh/claim-index"
"""Annotation on claims: which node of the Workspace it is, counted from 0."""

PREFERRED: Final = "kaito.sh/preferred-node"
"""Label `true` on nodes that a Workspace took by `preferredNodes`: they are released, not deleted, with it."""

PROVISION_ATTEMPTS: Final = "kaito.sh/provision-attempts"
"""Annotation on Workspaces: JSON of the replacement claims so far and when the next is due. Written by the workspace
controller, so that a restart neither forgets the pause nor buys twice."""

TEMPLATE_HASH: Final = "kaito.sh/template-hash"
"""Annotation on workloads: digest of the pod template as rendered."""

CONFIG_HASH: Final = "kaito.sh/config-hash"
"""Annotation on pod templates: digest of the ConfigMap the pods mount, so that an edit rolls them."""

# ── Workspace: annotations a user may set ────────────────────────────────────────────────────────────────────────────

ENABLE_LOAD_BALANCER: Final = "kaito.sh/enablelb"
"""`true` (any case): the Service is of type LoadBalancer. For trials: there is no authentication in front."""

RUNTIME: Final = "kaito.sh/runtime"
"""`transformers` or `vllm`; absent lets the controller choose by model and GPU."""

BYPASS_RESOURCE_CHECKS: Final = "kaito.sh/bypass-resource-checks"
"""`true` (any case): a model estimated too large for the instance type is a warning instead of a refusal."""

PERFORMANCE_MODE: Final = "kaito.sh/performance-mode"
"""`throughput`, `interactivity` or `balanced` (the default): what vLLM is tuned for, its flag `--performance-mode`."""

NODE_IMAGE_FAMILY: Final = "kaito.sh/node-image-family"
"""`ubuntu` or `azurelinux` (any case): operating system of new nodes. Copied to the claim's annotations."""

NODE_COUNT_OVERRIDE: Final = "kaito.sh/node-count-override"
"""A positive number: exactly so many nodes, whatever the estimate says."""

DISABLE_BENCHMARK: Final = "kaito.sh/disable-benchmark"
"""`true` or `false` (any case). This controller runs no benchmark, so both mean the same."""

USE_LOCAL_WEIGHTS: Final = "kaito.sh/use-local-weights"
"""`false` only: weights on the disks of nodes, as upstream Kaito mounts them, are not supported."""

MODEL_STREAMING: Final = "kaito.sh/model-streaming"
"""`disabled` only: weights are not streamed from object storage."""

NODE_CLASS_NAME: Final = "kaito.sh/node-class-name"
"""`default` only: new nodes are claimed with the node class of the cloud's provisioner."""

MODEL_MIRROR_STORAGE_CLASS: Final = "kaito.sh/model-mirror-storage-class"
"""Upstream Kaito's model mirror, which is not supported: refused."""

STREAMING_SERVICE_ACCOUNT: Final = "kaito.sh/streaming-service-account"
"""Upstream Kaito's model streaming, which is not supported: refused."""

TRUE: Final = "true"
"""What the controllers write for yes. They read it in any case: see `is_true`."""

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
        PREFERRED,
        MACHINE_TYPE,
        CREATION_TIMESTAMP,
        KARPENTER_WORKSPACE,
        KARPENTER_WORKSPACE_NAMESPACE,
        KARPENTER_INFERENCESET,
        KARPENTER_INFERENCESET_NAMESPACE,
    }
)
"""Label keys the controllers own; a user's selector may not use them (they would fight over the value)."""

RESERVED_DOMAINS: Final = ("karpenter.sh", "karpenter.kaito.sh")
"""Label domains that belong to Karpenter; with `karpenter.sh/nodepool` in a selector a foreign Karpenter would adopt
the claim."""


_OF_CLOUDS: Final = frozenset({"accelerator", "agentpool", "storageprofile", "storagetier"})
"""Keys without a domain that Azure Kubernetes Service sets on its nodes ("Use labels in an AKS cluster")."""


def is_set_by_others(key: str) -> bool:
    """Whether a kubelet, a cloud or a discovery agent may set this label on a new node.

    All of them use keys with a domain, apart from a few of Azure. A key of a user is there only if the claim sets it.
    """
    return "/" in key or key in _OF_CLOUDS


def is_true(value: str | None) -> bool:
    """Whether an annotation or label says yes: `true` in any case. Everything else, absence included, is no."""
    return value is not None and value.strip().lower() == TRUE


def is_reserved(key: str) -> bool:
    """Whether a user may not put this label key into a selector."""
    return key in RESERVED_KEYS or key.partition("/")[0] in RESERVED_DOMAINS
