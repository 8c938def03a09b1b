"""Condition types and reasons of claims, in both generations of Karpenter's API.

The gpu-provisioner writes them, and the workspace controller reads them. A claim is Ready if it is launched, registered
and initialized. A Machine's stages have a prefix, and are False where those of a NodeClaim are Unknown. Types and
reasons are Karpenter's (v1.7, and v0.29 for Machine).
"""

from typing import Final, NamedTuple

READY: Final = "Ready"
"""Summary condition of both kinds."""

DRAINED: Final = "Drained"
"""All pods that can be evicted have left the node that is being terminated."""

VOLUMES_DETACHED: Final = "VolumesDetached"
"""All volumes are detached from the node."""

INSTANCE_TERMINATING: Final = "InstanceTerminating"
"""True: the cloud deletes the instance. False: the cloud rejects the deletion until an administrator removes the cause
(a lock, a missing permission); the message contains the cloud's error. Unknown: the deletion is delayed and retried."""

DRIFTED: Final = "Drifted"
"""The node differs from its NodePool or node class. Written by Karpenter only."""

NODE_READY: Final = "NodeReady"
"""Informational: a copy of the node's Ready condition, so that the claim reports failures after initialization."""


class Stages(NamedTuple):
    """The condition types of one kind's stages, in the order they are reached."""

    launched: str
    registered: str
    initialized: str


NODE_CLAIM_STAGES: Final = Stages("Launched", "Registered", "Initialized")
MACHINE_STAGES: Final = Stages("MachineLaunched", "MachineRegistered", "MachineInitialized")

# ── reasons ──────────────────────────────────────────────────────────────────────────────────────────────────────────

AWAITING_RECONCILIATION: Final = "AwaitingReconciliation"
"""The stage has not been reconciled yet. Readers show it only if no stage has another reason."""

LAUNCH_FAILED: Final = "LaunchFailed"
"""The launch failed; the message contains the cloud's error, at most 800 characters."""

INSUFFICIENT_CAPACITY: Final = "InsufficientCapacity"
"""The cloud has no capacity for the instance type in the region or zone."""

QUOTA_EXCEEDED: Final = "QuotaExceeded"
"""The subscription's quota of the instance family is exhausted."""

UNSUPPORTED_INSTANCE_TYPE: Final = "UnsupportedInstanceType"
"""The cloud does not offer the instance type in the region, or it has no GPU."""

UNAUTHORIZED: Final = "Unauthorized"
"""The provisioner's identity lacks a permission."""

INVALID_CLAIM: Final = "InvalidClaim"
"""The claim cannot be fulfilled: it has no instance type, no disk size, or a name that the cloud rejects."""

AGENT_POOL_CREATING: Final = "AgentPoolCreating"
"""The cloud is creating the instance."""

AGENT_POOL_DELETING: Final = "AgentPoolDeleting"
"""An earlier agent pool of the same name is being deleted."""

AGENT_POOL_NAME_CONFLICT: Final = "AgentPoolNameConflict"
"""An agent pool of the claim's name exists and has another owner; it is left unchanged."""

CLUSTER_NOT_FOUND: Final = "ClusterNotFound"
"""The configured cluster does not exist in the cloud: the provisioner's settings are wrong."""

CLOUD_THROTTLED: Final = "CloudThrottled"
"""The cloud throttled the request; retried after the delay that the cloud requests."""

CLOUD_BUSY: Final = "CloudBusy"
"""Another operation on the cluster is in progress; retried after it."""

CLOUD_CONFLICT: Final = "CloudConflict"
"""The cloud rejected the request because of the state of a resource; retried with backoff."""

BLOCKED_BY_CLOUD: Final = "BlockedByCloud"
"""A lock, a policy or a full subnet in the cloud prevents the launch or the deletion. Retried at long intervals until
an administrator removes the cause."""

DELETION_FAILED: Final = "DeletionFailed"
"""The cloud did not delete the instance; the message contains the cloud's error."""

TERMINATING: Final = "Terminating"
"""Reason of Ready: the claim is being deleted."""

CLOUD_UNAVAILABLE: Final = "CloudUnavailable"
"""The cloud returned a server error or did not respond; retried."""

OPERATION_CANCELED: Final = "OperationCanceled"
"""Another operation superseded the launch; retried."""

PROVIDER_ID_MISSING: Final = "ProviderIDMissing"
"""The node has joined, but the cloud's node manager has not set its provider ID yet."""

PROVIDER_ID_MISMATCH: Final = "ProviderIDMismatch"
"""The node with the claim's labels has another provider ID."""

INITIALIZATION_TIMEOUT: Final = "InitializationTimeout"
"""The node joined but did not initialize in time; the message contains what is missing."""

LAUNCH_TIMEOUT: Final = "LaunchTimeout"
"""The cloud did not create the instance in time; the claim is deleted."""

REGISTRATION_TIMEOUT: Final = "RegistrationTimeout"
"""The instance exists, but its node did not join in time; the claim is deleted."""

NOT_LAUNCHED: Final = "MachineNotLaunched"
"""Machine only: the stage waits for the launch."""

NODE_NOT_FOUND: Final = "NodeNotFound"
"""No node of the instance has joined yet."""

MULTIPLE_NODES_FOUND: Final = "MultipleNodesFound"
"""Several nodes have the provider ID of the instance."""

NODE_NOT_READY: Final = "NodeNotReady"
"""The node has joined, but its kubelet does not report Ready."""

STARTUP_TAINTS_EXIST: Final = "StartupTaintsExist"
"""The node still has a startup taint of the claim."""

EPHEMERAL_TAINTS_EXIST: Final = "KnownEphemeralTaintsExist"
"""The node still has a taint that Kubernetes sets on starting nodes."""

RESOURCE_NOT_REGISTERED: Final = "ResourceNotRegistered"
"""The node does not advertise a resource that the claim requests, such as its GPUs."""

RECONCILING_DEPENDENTS: Final = "ReconcilingDependents"
"""A stage is not complete; the message lists which."""

UNHEALTHY_DEPENDENTS: Final = "UnhealthyDependents"
"""A stage failed; the message lists which."""

DRAINING: Final = "Draining"
"""Pods are being evicted from the node."""

AWAITING_VOLUME_DETACHMENT: Final = "AwaitingVolumeDetachment"
"""Volumes are still attached to the node."""

TERMINATION_GRACE_PERIOD_ELAPSED: Final = "TerminationGracePeriodElapsed"
"""The time limit for draining or detaching has passed; the termination continues."""

UNAVAILABLE_MESSAGE: Final = "all requested instance types were unavailable during launch"
"""Message by which readers of claims (Karpenter, upstream Kaito's RAGEngine) recognize a launch that cannot succeed."""

TERMINAL_LAUNCH_REASONS: Final = frozenset(
    {
        INSUFFICIENT_CAPACITY,
        QUOTA_EXCEEDED,
        UNSUPPORTED_INSTANCE_TYPE,
        UNAUTHORIZED,
        INVALID_CLAIM,
        BLOCKED_BY_CLOUD,
    }
)
"""Launch reasons that persist until capacity, quota or configuration changes."""
