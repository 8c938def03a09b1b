"""The kind InferenceSet: a number of Workspaces that serve the same model. Fields, status and validation."""

from kaito.api.inference_set.kind import InferenceSet as InferenceSet, InferenceSetV1Alpha1 as InferenceSetV1Alpha1
from kaito.api.inference_set.spec import (
    AutoUpgrade as AutoUpgrade,
    InferenceSetSpec as InferenceSetSpec,
    MaintenanceWindow as MaintenanceWindow,
    UpdateStrategy as UpdateStrategy,
    WorkspaceTemplate as WorkspaceTemplate,
)
from kaito.api.inference_set.status import (
    AutoUpgradeStatus as AutoUpgradeStatus,
    InferenceSetStatus as InferenceSetStatus,
)
