"""Reasons of the provisioner's events.

The reasons of conditions are in `kaito.api.karpenter.conditions`; an event about a condition has the same reason.
"""

from typing import Final

UNKNOWN_IMAGE_FAMILY: Final = "UnknownImageFamily"
RETRYING: Final = "RetryingLaunch"
OFFER_REFUSED: Final = "OfferRefused"
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
AWAITING_VOLUME_DETACHMENT: Final = "AwaitingVolumeDetachment"
