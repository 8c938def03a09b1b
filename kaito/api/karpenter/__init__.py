"""Karpenter's claims: Machine v1alpha5 and NodeClaim v1, and their common base `Claim`."""

from kaito.api.karpenter.claim import (
    Claim as Claim,
    ClaimSpec as ClaimSpec,
    ClaimStatus as ClaimStatus,
    Requirement as Requirement,
    ResourceRequirements as ResourceRequirements,
    Taint as Taint,
)
from kaito.api.karpenter.machine import (
    Machine as Machine,
    MachineSpec as MachineSpec,
    MachineStatus as MachineStatus,
    MachineTemplateRef as MachineTemplateRef,
)
from kaito.api.karpenter.nodeclaim import (
    NodeClaim as NodeClaim,
    NodeClaimSpec as NodeClaimSpec,
    NodeClaimStatus as NodeClaimStatus,
    NodeClassRef as NodeClassRef,
)
