"""Condition types and reasons of a Workspace: the words `kubectl describe workspace` shows, in one place.

The workspace controller writes them, users and scripts read them, so they are part of the API: each constant says
when it applies. A condition is True only while it is true; `Unknown` means not observed yet. Reasons are CamelCase
(Kubernetes API conventions); those that upstream Kaito spells in CamelCase keep its spelling.
"""

from typing import Final

# ── types ────────────────────────────────────────────────────────────────────────────────────────────────────────────

NODE_CLAIM_READY: Final = "NodeClaimReady"
"""Every claim this Workspace needs is Ready (with `--node-api nodeclaim`)."""

MACHINE_READY: Final = "MachineReady"
"""The same with `--node-api machine`."""

NODES_READY: Final = "NodesReady"
"""Enough nodes are Ready, schedulable, of the right instance type, and advertise their GPUs."""

RESOURCE_READY: Final = "ResourceReady"
"""Claims and nodes are ready: the workload can be placed. Column RESOURCEREADY."""

INFERENCE_READY: Final = "InferenceReady"
"""Every inference pod is ready and the Service has an endpoint. Column INFERENCEREADY."""

JOB_STARTED: Final = "JobStarted"
"""A container of the tuning Job runs or ran."""

WORKSPACE_SUCCEEDED: Final = "WorkspaceSucceeded"
"""Inference answers, or the tuning Job completed."""

WORKSPACE_READY: Final = "WorkspaceReady"
"""Same status, reason and message as `WorkspaceSucceeded`: the name the column WORKSPACEREADY reads."""

WORKSPACE_DELETING: Final = "WorkspaceDeleting"
"""Deletion was requested and is waiting for what its message says."""

ALIASES: Final = {WORKSPACE_SUCCEEDED: WORKSPACE_READY}
"""Conditions written twice: whoever sets the first sets the second with the same content."""

# ── reasons: nodes ───────────────────────────────────────────────────────────────────────────────────────────────────

NODES_READY_REASON: Final = "NodesReady"
"""As many nodes as wanted are ready."""

NODE_NOT_READY: Final = "NodeNotReady"
"""Too few ready nodes."""

NODE_PLUGINS_NOT_READY: Final = "NodePluginsNotReady"
"""Nodes are ready but do not advertise their GPUs yet: the device plugin is missing or still starting."""

CLAIMS_READY: Final = "NodeClaimsReady"
"""As many NodeClaims as wanted are Ready."""

CLAIM_NOT_READY: Final = "NodeClaimNotReady"
"""Claims are on their way, and none has said why it is not ready."""

MACHINES_READY: Final = "MachinesReady"
"""As many Machines as wanted are Ready."""

MACHINE_NOT_READY: Final = "MachineNotReady"
"""Machines are on their way, and none has said why it is not ready."""

CLAIM_CREATE_FAILED: Final = "NodeClaimCreateFailed"
"""The API server refused a claim; the message carries its answer."""

CLAIM_KIND_MISSING: Final = "ClaimKindNotInstalled"
"""The cluster has no CRD for the claims that `--node-api` names."""

PROVISION_TIMEOUT: Final = "NodeProvisionTimeout"
"""A claim did not become ready within `--node-provision-timeout`; it is replaced after a growing pause."""

CLAIM_REPLACEMENT_PENDING: Final = "ReplacementPending"
"""A claim went away or was given up; the message says when the next one is created."""

CLAIMS_PENDING: Final = "ClaimsPending"
"""Claims are about to be created."""

RESOURCES_READY: Final = "ResourcesReady"
"""Claims and nodes are ready."""

RESOURCES_NOT_READY: Final = "ResourcesNotReady"
"""Nodes are missing, and nothing says more."""

RECONCILE_ERROR: Final = "ReconcileError"
"""A step of the controller failed; the message has the error. Status Unknown: the condition could not be evaluated."""

# ── reasons: planning ────────────────────────────────────────────────────────────────────────────────────────────────

UNKNOWN_PRESET: Final = "UnknownPreset"
"""The catalog has no such preset; the message has the nearest names."""

UNKNOWN_INSTANCE_TYPE: Final = "UnknownInstanceType"
"""The instance type does not exist, or has no GPU that can be used."""

INSTANCE_TYPE_TOO_SMALL: Final = "InstanceTypeTooSmall"
"""The model does not fit; the message has both numbers and a size that would do."""

INVALID_SPEC: Final = "InvalidSpec"
"""The object was stored although a rule refuses it (webhook off, older CRD); the message has every violation."""

CONFIG_NOT_FOUND: Final = "ConfigNotFound"
"""The ConfigMap named by `inference.config` or `tuning.config` does not exist or lacks its key."""

CONFIG_INVALID: Final = "ConfigInvalid"
"""The ConfigMap's text is not a valid configuration file; the message has key and line."""

SECRET_INVALID: Final = "SecretInvalid"  # noqa: S105 - the reason's name, not a secret
"""A Secret that the Workspace names lacks the key that is read, or the key holds something else."""

SECRET_NOT_FOUND: Final = "SecretNotFound"  # noqa: S105 - the reason's name, not a secret
"""A Secret the Workspace names does not exist in its namespace."""

MODEL_RESOLVED: Final = "ModelResolved"
"""Type and reason: the preset is in the catalog and fits the instance type."""

# ── reasons: inference ───────────────────────────────────────────────────────────────────────────────────────────────

INFERENCE_SERVING: Final = "WorkspaceInferenceStatusSuccess"
"""Every pod is ready."""

INFERENCE_PENDING: Final = "WorkspaceInferenceStatusPending"
"""Pods are starting, and nothing is wrong so far."""

WAITING_FOR_RESOURCES: Final = "WaitingForResources"
"""Nodes are not ready yet, so there is no pod to look at."""

NAME_CONFLICT: Final = "NameConflict"
"""An object of the workload's name exists and belongs to somebody else."""

WORKLOAD_REFUSED: Final = "WorkloadRefused"
"""The API server refuses the rendered workload, for example for a field of `inference.template`."""

IMAGE_PULL_ERROR: Final = "ImagePullError"
"""The node cannot pull an image of the pod."""

POD_CREATION_FAILED: Final = "PodCreationFailed"
"""Kubernetes may not create the pods (Pod Security, quota, LimitRange, webhook); the message has the refusal."""

CONTAINER_START_ERROR: Final = "ContainerStartError"
"""A container cannot be created or started."""

CONTAINER_OOM_KILLED: Final = "ContainerOOMKilled"
"""A container used more memory than it may and was killed."""

CONTAINER_CRASH_LOOP: Final = "ContainerCrashLoopBackOff"
"""A container ends again and again; the message has its exit code and last words."""

POD_EVICTED: Final = "PodEvicted"
"""The node evicted the pod."""

POD_FAILED: Final = "PodFailed"
"""The pod ended with an error."""

UNSCHEDULABLE: Final = "Unschedulable"
"""No node takes the pod; the message has the scheduler's words."""

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
"""The tuning Job failed; the message says why."""

# ── reasons: the whole ───────────────────────────────────────────────────────────────────────────────────────────────

SUCCEEDED: Final = "WorkspaceSucceeded"
"""Inference answers, or tuning completed."""

PENDING: Final = "WorkspacePending"
"""Not there yet; the message says what is awaited."""

FAILED: Final = "WorkspaceFailed"
"""Tuning failed, or the Workspace can never succeed as it is."""

DELETING: Final = "WorkspaceDeleting"
"""Deletion was requested."""

DELETION_FAILED: Final = "DeletionFailed"
"""Something of the Workspace could not be deleted; the message has the error. It is tried again."""

CLOUD_REFUSES_DELETION: Final = "CloudRefusesDeletion"
"""The cloud does not delete a machine until a person removes the cause (a lock, a missing permission); the message has
its words. The machine still costs money."""

WAITING_FOR_CLAIMS: Final = "WaitingForClaims"
"""Deletion waits for claims (and the machines behind them) to go."""
