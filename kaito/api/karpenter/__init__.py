"""Karpenter's claims, Machine v1alpha5 and NodeClaim v1 with their common base `Claim`, and its NodePool v1."""

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
from kaito.api.karpenter.nodepool import (
    Disruption as Disruption,
    DisruptionBudget as DisruptionBudget,
    NodePool as NodePool,
    NodePoolSpec as NodePoolSpec,
    NodePoolStatus as NodePoolStatus,
    NodeTemplate as NodeTemplate,
    NodeTemplateMetadata as NodeTemplateMetadata,
    NodeTemplateSpec as NodeTemplateSpec,
)
