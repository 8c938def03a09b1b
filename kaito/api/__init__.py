"""Kaito's kinds as typed data: Workspace, and the Karpenter claims it speaks to. No I/O, no cluster, no clock.

Both managers and the generators of `config/` import from here; it imports `kaito.runtime` only.

    workspace/   Workspace v1beta1 (stored) and v1alpha1: one field tree, validation as pure functions
    karpenter/   Machine v1alpha5 and NodeClaim v1 behind one `Claim`
    labels       every label, annotation and finalizer key
    conditions   every condition type and reason
"""

from kaito.api.karpenter import (
    Claim as Claim,
    Machine as Machine,
    NodeClaim as NodeClaim,
)
from kaito.api.workspace import (
    Workspace as Workspace,
    WorkspaceV1Alpha1 as WorkspaceV1Alpha1,
)
