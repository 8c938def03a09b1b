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
"""The tuning Job has a pod that runs or ran."""

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
NODE_NOT_READY: Final = "NodeNotReady"
"""Too few ready nodes."""

NODE_PLUGINS_NOT_READY: Final = "NodePluginsNotReady"
"""Nodes are ready but do not advertise their GPUs yet: the device plugin is missing or still starting."""

CLAIMS_READY: Final = "NodeClaimsReady"
CLAIM_NOT_READY: Final = "NodeClaimNotReady"
"""Claims are on their way, and none has said why it is not ready."""

MACHINES_READY: Final = "MachinesReady"
MACHINE_NOT_READY: Final = "MachineNotReady"

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
RESOURCES_NOT_READY: Final = "ResourcesNotReady"

# ── reasons: planning ────────────────────────────────────────────────────────────────────────────────────────────────

UNKNOWN_PRESET: Final = "UnknownPreset"
UNKNOWN_INSTANCE_TYPE: Final = "UnknownInstanceType"
INSTANCE_TYPE_TOO_SMALL: Final = "InstanceTypeTooSmall"
INVALID_SPEC: Final = "InvalidSpec"
"""The object was stored although a rule refuses it (webhook off, older CRD); the message has every violation."""

CONFIG_NOT_FOUND: Final = "ConfigNotFound"
"""The ConfigMap named by `inference.config` or `tuning.config` does not exist or lacks its key."""

SECRET_NOT_FOUND: Final = "SecretNotFound"  # noqa: S105 - the reason's name, not a secret
"""A Secret the Workspace names does not exist in its namespace."""

MODEL_RESOLVED: Final = "ModelResolved"
"""Type and reason: the preset is in the catalogue and fits the instance type."""

# ── reasons: inference ───────────────────────────────────────────────────────────────────────────────────────────────

INFERENCE_SERVING: Final = "WorkspaceInferenceStatusSuccess"
INFERENCE_PENDING: Final = "WorkspaceInferenceStatusPending"
WAITING_FOR_RESOURCES: Final = "WaitingForResources"
"""Nodes are not ready yet, so there is no pod to look at."""

NAME_CONFLICT: Final = "NameConflict"
"""An object of the workload's name exists and belongs to somebody else."""

WORKLOAD_REFUSED: Final = "WorkloadRefused"
"""The API server refuses the rendered workload, for example for a field of `inference.template`."""

IMAGE_PULL_ERROR: Final = "ImagePullError"
CONTAINER_START_ERROR: Final = "ContainerStartError"
CONTAINER_OOM_KILLED: Final = "ContainerOOMKilled"
CONTAINER_CRASH_LOOP: Final = "ContainerCrashLoopBackOff"
POD_EVICTED: Final = "PodEvicted"
POD_FAILED: Final = "PodFailed"
UNSCHEDULABLE: Final = "Unschedulable"
NODE_DISK_PRESSURE: Final = "NodeDiskPressure"
NODE_MEMORY_PRESSURE: Final = "NodeMemoryPressure"

# ── reasons: tuning ──────────────────────────────────────────────────────────────────────────────────────────────────

JOB_PENDING: Final = "WorkspaceTuningJobStatusPending"
JOB_RUNNING: Final = "WorkspaceTuningJobStatusStarted"
JOB_FAILED: Final = "WorkspaceTuningJobStatusFailed"

# ── reasons: the whole ───────────────────────────────────────────────────────────────────────────────────────────────

SUCCEEDED: Final = "WorkspaceSucceeded"
PENDING: Final = "WorkspacePending"
FAILED: Final = "WorkspaceFailed"
DELETING: Final = "WorkspaceDeleting"
WAITING_FOR_CLAIMS: Final = "WaitingForClaims"
"""Deletion waits for claims (and the machines behind them) to go."""
