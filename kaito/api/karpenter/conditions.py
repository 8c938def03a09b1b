"""Condition types and reasons of claims, in both generations of Karpenter's API.

gpu-provisioner writes them, the workspace controller reads them. A claim is Ready when its three stages (launched,
registered, initialized) are; a Machine spells the stages with a prefix, and reports trouble as False where a
NodeClaim says Unknown. Names and reasons are Karpenter's (v1.7, and v0.29 for Machine).
"""

from typing import Final, NamedTuple

READY: Final = "Ready"
"""Root condition of both kinds."""

DRAINED: Final = "Drained"
"""Every pod that can be moved has left the node, which is being terminated."""

VOLUMES_DETACHED: Final = "VolumesDetached"
"""No volume is attached to the node any more."""

INSTANCE_TERMINATING: Final = "InstanceTerminating"
"""True: the cloud deletes the machine. False: the cloud refuses to, until a person removes the cause (a lock, a missing
permission); the message has its words. Unknown: the deletion is delayed and tried again."""

NODE_READY: Final = "NodeReady"
"""Informational: mirrors the node's own Ready, so that trouble after initialization shows on the claim."""


class Stages(NamedTuple):
    """The condition types of one kind's stages, in the order they are reached."""

    launched: str
    registered: str
    initialized: str


NODE_CLAIM_STAGES: Final = Stages("Launched", "Registered", "Initialized")
MACHINE_STAGES: Final = Stages("MachineLaunched", "MachineRegistered", "MachineInitialized")

# ── reasons ──────────────────────────────────────────────────────────────────────────────────────────────────────────

AWAITING_RECONCILIATION: Final = "AwaitingReconciliation"
"""Nothing looked at the claim yet. Readers show it only when no stage has anything better to say."""

LAUNCH_FAILED: Final = "LaunchFailed"
"""The cloud refused or failed; the message has its words, at most 800 characters."""

INSUFFICIENT_CAPACITY: Final = "InsufficientCapacity"
"""The cloud has no machine of that size in that region or zone now."""

QUOTA_EXCEEDED: Final = "QuotaExceeded"
"""The subscription's quota does not allow another machine of that family."""

UNSUPPORTED_INSTANCE_TYPE: Final = "UnsupportedInstanceType"
"""The cloud does not offer that size there, or it has no GPU."""

UNAUTHORIZED: Final = "Unauthorized"
"""The provisioner's identity may not do that."""

INVALID_CLAIM: Final = "InvalidClaim"
"""The claim itself cannot be fulfilled: no instance type, no disk size, or a name the cloud refuses."""

AGENT_POOL_CREATING: Final = "AgentPoolCreating"
"""The cloud accepted the machine and is making it."""

AGENT_POOL_DELETING: Final = "AgentPoolDeleting"
"""A former machine of the name has to go first."""

AGENT_POOL_NAME_CONFLICT: Final = "AgentPoolNameConflict"
"""A machine of the claim's name exists and is somebody else's; it is left alone."""

CLUSTER_NOT_FOUND: Final = "ClusterNotFound"
"""The cloud knows no cluster of the configured name: the provisioner is set up wrongly."""

CLOUD_THROTTLED: Final = "CloudThrottled"
"""Too many requests; tried again when the cloud allows."""

CLOUD_BUSY: Final = "CloudBusy"
"""Another operation on the cluster has to end first."""

CLOUD_CONFLICT: Final = "CloudConflict"
"""The cloud refused because of the state of a resource, without naming an operation to wait for; tried again with
growing pauses."""

BLOCKED_BY_CLOUD: Final = "BlockedByCloud"
"""A lock, a policy or a full subnet in the cloud forbids it; it is tried again rarely, until a person removes that."""

DELETION_FAILED: Final = "DeletionFailed"
"""The cloud did not delete the machine; the message has its words."""

TERMINATING: Final = "Terminating"
"""Of Ready: the claim is being deleted."""

CLOUD_UNAVAILABLE: Final = "CloudUnavailable"
"""The cloud failed or did not answer; tried again."""

OPERATION_CANCELED: Final = "OperationCanceled"
"""A later operation overrode ours; tried again."""

PROVIDER_ID_MISSING: Final = "ProviderIDMissing"
"""The node has joined; the cloud's node manager has not yet said which machine it is."""

PROVIDER_ID_MISMATCH: Final = "ProviderIDMismatch"
"""The node with the claim's labels is another machine."""

INITIALIZATION_TIMEOUT: Final = "InitializationTimeout"
"""The node joined and did not become usable in time; the message says what is missing."""

LAUNCH_TIMEOUT: Final = "LaunchTimeout"
"""The cloud did not finish the machine in time; the claim is deleted."""

REGISTRATION_TIMEOUT: Final = "RegistrationTimeout"
"""The machine is there, but its node did not join in time; the claim is deleted."""

NOT_LAUNCHED: Final = "MachineNotLaunched"
"""Machine only: a later stage waits for the launch."""

NODE_NOT_FOUND: Final = "NodeNotFound"
"""No node has joined for this machine yet."""

MULTIPLE_NODES_FOUND: Final = "MultipleNodesFound"
"""More than one node says it is this machine."""

NODE_NOT_READY: Final = "NodeNotReady"
"""The node has joined, and its kubelet does not report Ready."""

STARTUP_TAINTS_EXIST: Final = "StartupTaintsExist"
"""A startup taint of the claim is still on the node."""

EPHEMERAL_TAINTS_EXIST: Final = "KnownEphemeralTaintsExist"
"""A taint that Kubernetes puts on starting nodes is still there."""

RESOURCE_NOT_REGISTERED: Final = "ResourceNotRegistered"
"""The node does not advertise something the claim asked for, such as its GPUs."""

RECONCILING_DEPENDENTS: Final = "ReconcilingDependents"
"""A stage is not there yet; the message lists which."""

UNHEALTHY_DEPENDENTS: Final = "UnhealthyDependents"
"""A stage failed; the message lists which."""

DRAINING: Final = "Draining"
"""Pods are being evicted from the node."""

AWAITING_VOLUME_DETACHMENT: Final = "AwaitingVolumeDetachment"
"""Volumes are still attached to the node."""

TERMINATION_GRACE_PERIOD_ELAPSED: Final = "TerminationGracePeriodElapsed"
"""The time for draining or detaching is over; termination goes on without."""

UNAVAILABLE_MESSAGE: Final = "all requested instance types were unavailable during launch"
"""Text that readers of claims (Karpenter, upstream Kaito's RAGEngine) look for to tell a launch that cannot succeed
from one that is slow."""

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
"""Launch reasons that waiting a minute does not cure."""
