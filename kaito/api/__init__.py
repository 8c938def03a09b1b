"""Kaito's kinds as pydantic models: Workspace, InferenceSet, and the Karpenter claims that they create.

Both managers and the generators of `config/` use this package. It imports only `kaito.runtime` and does no I/O.

    workspace/       Workspace v1beta1 (stored) and v1alpha1: one field tree, validation as pure functions
    inference_set/   InferenceSet v1beta1 (stored) and v1alpha1, with the fields of a Workspace as its template
    karpenter/       Machine v1alpha5 and NodeClaim v1, and their common base `Claim`
    labels           every label, annotation and finalizer key
    conditions       every condition type and reason
"""

from kaito.api.inference_set import (
    InferenceSet as InferenceSet,
    InferenceSetV1Alpha1 as InferenceSetV1Alpha1,
)
from kaito.api.karpenter import (
    Claim as Claim,
    Machine as Machine,
    NodeClaim as NodeClaim,
)
from kaito.api.workspace import (
    Workspace as Workspace,
    WorkspaceV1Alpha1 as WorkspaceV1Alpha1,
)
