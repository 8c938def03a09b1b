"""The provisioner's own reasons of conditions and events; Karpenter's are in `kaito.api.karpenter.conditions`."""

from typing import Final

AGENT_POOL_CREATING: Final = "AgentPoolCreating"
"""The cloud accepted the instance and is making it."""

AGENT_POOL_DELETING: Final = "AgentPoolDeleting"
"""A former instance of the name has to go first."""

AGENT_POOL_NAME_CONFLICT: Final = "AgentPoolNameConflict"
"""An instance of the claim's name exists and is somebody else's."""

CLUSTER_NOT_FOUND: Final = "ClusterNotFound"
THROTTLED: Final = "CloudThrottled"
CLOUD_BUSY: Final = "CloudBusy"
CLOUD_UNAVAILABLE: Final = "CloudUnavailable"
OPERATION_CANCELED: Final = "OperationCanceled"

PROVIDER_ID_MISSING: Final = "ProviderIDMissing"
"""The node has joined; the cloud's node manager has not yet said which machine it is."""

PROVIDER_ID_MISMATCH: Final = "ProviderIDMismatch"
"""The node with the claim's labels is another machine."""

INITIALIZATION_TIMEOUT: Final = "InitializationTimeout"
UNKNOWN_IMAGE_FAMILY: Final = "UnknownImageFamily"

# events

LAUNCHING: Final = "Launching"
LAUNCHED: Final = "Launched"
REGISTERED: Final = "Registered"
INITIALIZED: Final = "Initialized"
TERMINATING: Final = "Terminating"
TERMINATED: Final = "Terminated"
NODE_UNHEALTHY: Final = "NodeUnhealthy"
INSTANCE_GONE: Final = "InstanceGone"
ORPHAN_DELETED: Final = "OrphanAgentPoolDeleted"
FAILED_DRAINING: Final = "FailedDraining"
