"""Condition types and reasons of a Workspace and of an InferenceSet.

The workspace controller writes them, and users and scripts read them, so they are part of the API. A condition is True
only while it holds; `Unknown` means that it was not evaluated. Reasons are CamelCase (Kubernetes API conventions), with
upstream Kaito's spelling where upstream has the same reason.
"""

from typing import Final

# ── types ────────────────────────────────────────────────────────────────────────────────────────────────────────────

NODE_CLAIM_READY: Final = "NodeClaimReady"
"""Every claim this Workspace needs is Ready (with `--node-api nodeclaim`)."""

MACHINE_READY: Final = "MachineReady"
"""Every claim this Workspace needs is Ready (with `--node-api machine`)."""

NODES_READY: Final = "NodesReady"
"""Enough nodes are Ready, schedulable, of the right instance type, and advertise their GPUs."""

RESOURCE_READY: Final = "ResourceReady"
"""Claims and nodes are ready: the workload can be placed. Column RESOURCEREADY."""

INFERENCE_READY: Final = "InferenceReady"
"""Every inference pod is ready and the Service has an endpoint. Column INFERENCEREADY."""

ADAPTERS_READY: Final = "AdaptersReady"
"""Every adapter that pods load without a restart is loaded in every ready pod. Requests are served meanwhile."""

JOB_STARTED: Final = "JobStarted"
"""A container of the tuning Job runs or ran."""

WORKSPACE_SUCCEEDED: Final = "WorkspaceSucceeded"
"""The model is served, or the tuning Job completed."""

WORKSPACE_READY: Final = "WorkspaceReady"
"""Same status, reason and message as `WorkspaceSucceeded`. Column WORKSPACEREADY."""

WORKSPACE_DELETING: Final = "WorkspaceDeleting"
"""The Workspace is being deleted; the message contains what the deletion waits for."""

ALIASES: Final = {WORKSPACE_SUCCEEDED: WORKSPACE_READY}
"""Conditions with an alias: the second always has the content of the first."""

# ── reasons: nodes ───────────────────────────────────────────────────────────────────────────────────────────────────

NODES_READY_REASON: Final = "NodesReady"
"""Enough nodes are ready."""

NODE_NOT_READY: Final = "NodeNotReady"
"""Too few ready nodes."""

NODE_PLUGINS_NOT_READY: Final = "NodePluginsNotReady"
"""Nodes are ready but do not advertise their GPUs: the device plugin is missing or starting."""

CLAIMS_READY: Final = "NodeClaimsReady"
"""Enough NodeClaims are Ready."""

CLAIM_NOT_READY: Final = "NodeClaimNotReady"
"""NodeClaims are being provisioned; no failure is reported."""

MACHINES_READY: Final = "MachinesReady"
"""Enough Machines are Ready."""

MACHINE_NOT_READY: Final = "MachineNotReady"
"""Machines are being provisioned; no failure is reported."""

CLAIM_CREATE_FAILED: Final = "NodeClaimCreateFailed"
"""The API server rejected a claim; the message contains its error."""

CLAIM_KIND_MISSING: Final = "ClaimKindNotInstalled"
"""The cluster has no CRD for the kind of claim that `--node-api` configures."""

NODE_POOL_REFUSED: Final = "NodePoolRefused"
"""The API server rejected the NodePool; the message contains its error."""

NODE_POOL_NOT_READY: Final = "NodePoolNotReady"
"""Karpenter reports that the NodePool cannot be used, for example because of its node class."""

NODE_POOL_IGNORED: Final = "NodePoolIgnored"
"""Karpenter has created no NodeClaim for the NodePool. It needs the feature gate StaticCapacity."""

PROVISION_TIMEOUT: Final = "NodeProvisionTimeout"
"""A claim was not ready within `--node-provision-timeout`; it is replaced with backoff."""

NODE_CLASS_KIND_MISSING: Final = "NodeClassKindNotInstalled"
"""The API server does not serve the kind of the node class: install the provisioner that defines it, or correct the
annotation `kaito.sh/node-class` or the flags `--karpenter-node-class-group` and `-kind`. No claim is created."""

NODE_CLASS_NOT_FOUND: Final = "NodeClassNotFound"
"""The node class of the claims does not exist: create it, or name another one. No claim is created."""

NODE_CLASS_NOT_READY: Final = "NodeClassNotReady"
"""The node class is not Ready; the message contains its cause. Karpenter would delete a claim at once, so none is
created."""

CLAIM_REPLACEMENT_PENDING: Final = "ReplacementPending"
"""A claim was lost or deleted; the message contains the time at which the next one is created."""

INSTANCE_TYPE_REFUSED: Final = "InstanceTypeRefused"
"""The cloud has no capacity or quota for an instance type of `resource.instanceTypes`, or `kaito.sh/replan` is set: the
claims are deleted, and the next alternative is used."""

ALTERNATIVES_EXHAUSTED: Final = "AlternativesExhausted"
"""The cloud is out of every instance type of `resource.instanceTypes`; the message contains the cause of each and the
time of the next attempt."""

BUDGET_EXCEEDED: Final = "BudgetExceeded"
"""Nodes would cost more than `resource.maxHourlyCost` or the budget of the namespace allows, or their price is unknown;
the message contains by how much. None is bought; nodes that exist stay."""

NODES_RELEASED: Final = "NodesReleased"
"""Tuning has ended, and its nodes were given back after `tuning.ttlSecondsAfterFinished`."""

CLAIMS_PENDING: Final = "ClaimsPending"
"""Claims are about to be created."""

RESOURCES_READY: Final = "ResourcesReady"
"""Claims and nodes are ready."""

RESOURCES_NOT_READY: Final = "ResourcesNotReady"
"""Nodes are missing; no failure is reported."""

RECONCILE_ERROR: Final = "ReconcileError"
"""A step of the controller failed; the message contains the error. With status Unknown, the condition could not be
evaluated."""

# ── reasons: planning ────────────────────────────────────────────────────────────────────────────────────────────────

UNKNOWN_PRESET: Final = "UnknownPreset"
"""The catalog does not contain the preset; the message contains similar names."""

UNKNOWN_INSTANCE_TYPE: Final = "UnknownInstanceType"
"""The instance type is unknown, or has no supported GPU."""

INSTANCE_TYPE_TOO_SMALL: Final = "InstanceTypeTooSmall"
"""The model does not fit; the message contains both sizes and a larger instance type."""

INVALID_SPEC: Final = "InvalidSpec"
"""The object violates a rule although it was stored (webhook off, older CRD); the message contains every violation."""

CONFIG_NOT_FOUND: Final = "ConfigNotFound"
"""The ConfigMap named by `inference.config` or `tuning.config` does not exist or lacks its key."""

CONFIG_INVALID: Final = "ConfigInvalid"
"""The ConfigMap does not contain a valid configuration file; the message contains key and line."""

SECRET_INVALID: Final = "SecretInvalid"  # noqa: S105 - the reason's name, not a secret
"""A Secret that the Workspace names lacks the key that is read, or its value is invalid."""

SECRET_NOT_FOUND: Final = "SecretNotFound"  # noqa: S105 - the reason's name, not a secret
"""A Secret that the Workspace names does not exist in its namespace."""

MODEL_RESOLVED: Final = "ModelResolved"
"""Type and reason: the preset is in the catalog and fits the instance type."""

MODEL_PENDING: Final = "ReadingModel"
"""The controller is reading the facts of a model outside the catalog. No node is claimed before."""

MODEL_UNREACHABLE: Final = "HubUnreachable"
"""The facts of a model could not be read because Hugging Face, the mirror or the registry does not answer; retried."""

MODEL_NOT_FOUND: Final = "ModelNotFound"
"""Hugging Face, or the mirror, has no such model or revision, or the token has no access to it; retried."""

MODEL_GATED: Final = "ModelGated"
"""The model requires a token that has access to it; the message contains what is missing. Retried."""

MODEL_INVALID: Final = "ModelInvalid"
"""The repository is not a model that can be served; the message contains the reason."""

MODEL_WITHOUT_SAFETENSORS: Final = "NoSafetensors"
"""The repository has no weights as safetensors."""

MODEL_UNSUPPORTED: Final = "UnsupportedArchitecture"
"""The engine does not serve the architecture or the quantization of the model."""

MODEL_NEEDS_REMOTE_CODE: Final = "RemoteCodeRequired"
"""The model needs Python code of its repository: set `presetOptions.trustRemoteCode` to allow it."""

# ── reasons: inference ───────────────────────────────────────────────────────────────────────────────────────────────

INFERENCE_SERVING: Final = "WorkspaceInferenceStatusSuccess"
"""Every pod is ready."""

SCALED_TO_ZERO: Final = "ScaledToZero"
"""`spec.replicas` is 0: no copy of the model and no node exists, until the Workspace is scaled up."""

INFERENCE_PENDING: Final = "WorkspaceInferenceStatusPending"
"""Pods are starting; no failure is reported."""

PULLING_WEIGHTS: Final = "PullingWeights"
"""A pod pulls the model's weights from a registry; the message contains the bytes."""

DOWNLOADING_WEIGHTS: Final = "DownloadingWeights"
"""A pod downloads the model's weights from Hugging Face; the message contains the bytes."""

LOADING_MODEL: Final = "LoadingModel"
"""A pod reads the model's weights into memory."""

WARMING_UP: Final = "WarmingUp"
"""A pod compiles or tests the model."""

WAITING_FOR_RESOURCES: Final = "WaitingForResources"
"""Nodes are not ready yet, so no pod exists."""

NAME_CONFLICT: Final = "NameConflict"
"""An object of the workload's name exists and has another owner."""

WORKLOAD_REFUSED: Final = "WorkloadRefused"
"""The API server rejects the rendered workload, for example because of a field of `inference.template`."""

IMAGE_PULL_ERROR: Final = "ImagePullError"
"""The node cannot pull an image of the pod."""

POD_CREATION_FAILED: Final = "PodCreationFailed"
"""Kubernetes cannot create the pods (Pod Security, quota, LimitRange, webhook); the message contains the error."""

CONTAINER_START_ERROR: Final = "ContainerStartError"
"""A container cannot be created or started."""

CONTAINER_OOM_KILLED: Final = "ContainerOOMKilled"
"""A container exceeded its memory limit and was killed."""

CONTAINER_CRASH_LOOP: Final = "ContainerCrashLoopBackOff"
"""A container ends repeatedly; the message contains its exit code and termination message."""

POD_EVICTED: Final = "PodEvicted"
"""The node evicted the pod."""

POD_FAILED: Final = "PodFailed"
"""The pod ended with an error."""

UNSCHEDULABLE: Final = "Unschedulable"
"""The pod cannot be scheduled; the message contains the scheduler's message."""

NODE_DISK_PRESSURE: Final = "NodeDiskPressure"
"""The node runs out of disk."""

NODE_MEMORY_PRESSURE: Final = "NodeMemoryPressure"
"""The node runs out of memory."""

# ── reasons: tuning ──────────────────────────────────────────────────────────────────────────────────────────────────

JOB_PENDING: Final = "WorkspaceTuningJobStatusPending"
"""The tuning Job has no running pod yet."""

JOB_RUNNING: Final = "WorkspaceTuningJobStatusStarted"
"""The tuning Job runs, or ran."""

JOB_FAILED: Final = "WorkspaceTuningJobStatusFailed"
"""The tuning Job failed; the message contains the cause."""

# ── reasons: summary ─────────────────────────────────────────────────────────────────────────────────────────────────

SUCCEEDED: Final = "WorkspaceSucceeded"
"""The model is served, or tuning completed."""

PENDING: Final = "WorkspacePending"
"""Not succeeded yet; the message contains what is missing."""

FAILED: Final = "WorkspaceFailed"
"""Tuning failed."""

DELETING: Final = "WorkspaceDeleting"
"""The Workspace is being deleted."""

DELETION_FAILED: Final = "DeletionFailed"
"""An object of the Workspace could not be deleted; the message contains the error. The deletion is retried."""

CLOUD_REFUSES_DELETION: Final = "CloudRefusesDeletion"
"""The cloud rejects the deletion of an instance until an administrator removes the cause, such as a lock or a missing
permission. The message contains the cloud's error. The instance still costs money."""

WAITING_FOR_CLAIMS: Final = "WaitingForClaims"
"""The deletion waits until the claims and their instances are deleted."""

# ── reasons: adapters ────────────────────────────────────────────────────────────────────────────────────────────────

ADAPTERS_LOADED: Final = "AdaptersLoaded"
"""Every adapter is loaded."""

ADAPTERS_LOADING: Final = "AdaptersLoading"
"""Pods are pulling or loading adapters, or have not received the changed list yet."""

ADAPTER_FAILED: Final = "AdapterFailed"
"""An adapter cannot be pulled or loaded; the message contains the cause. It is retried, and the others are served."""

# ── InferenceSets ────────────────────────────────────────────────────────────────────────────────────────────────────

INFERENCE_SET_READY: Final = "InferenceSetReady"
"""Type and reason: as many Workspaces serve as `spec.replicas` requests, behind the Service of the set."""

INFERENCE_SET_UPDATED: Final = "InferenceSetUpdated"
"""Type and reason: every Workspace of the set has the current template and is ready with it."""

INFERENCE_SET_ROUTED: Final = "InferenceSetRouted"
"""Type and reason: the Gateway of `--inference-gateway` has accepted the InferencePool and the HTTPRoute of the set."""

INFERENCE_SET_DELETING: Final = "InferenceSetDeleting"
"""The InferenceSet is being deleted; the message contains what the deletion waits for."""

INFERENCE_SET_NOT_READY: Final = "InferenceSetNotReady"
"""Too few Workspaces serve; the message contains the cause of the first one that does not."""

NODE_LIMIT_REACHED: Final = "NodeLimitReached"
"""Another Workspace would need more nodes than `spec.nodeCountLimit` allows; the message contains both numbers."""

WORKSPACE_REFUSED: Final = "WorkspaceRefused"
"""The API server rejects a Workspace of the set; the message contains its error."""

UPDATING: Final = "Updating"
"""Workspaces are being changed or replaced. The message contains how many have the current template, and why one of
them is not ready, for which the update waits."""

UPDATE_ON_DELETE: Final = "OnDelete"
"""Workspaces keep an old template until you delete them, because of `spec.updateStrategy.type`."""

GATEWAY_KIND_MISSING: Final = "GatewayKindNotInstalled"
"""The cluster has no CRD for InferencePool or HTTPRoute: install the Gateway API and its inference extension."""

ENDPOINT_PICKER_MISSING: Final = "EndpointPickerNotFound"
"""The Service of the endpoint picker does not exist: install the picker, or correct `--endpoint-picker`."""

NOT_ACCEPTED: Final = "NotAccepted"
"""The Gateway has not accepted the pool or the route; the message contains its cause."""

WAITING_FOR_WORKSPACES: Final = "WaitingForWorkspaces"
"""The deletion waits until the Workspaces are deleted."""
