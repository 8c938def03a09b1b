"""The Workspace kind in both served versions.

v1beta1 is stored. v1alpha1 has the same field tree, so the API server converts by rewriting `apiVersion` alone
(strategy `None`) and nothing is lost either way. Controllers use `Workspace` (v1beta1) only; `WorkspaceV1Alpha1` exists
for the CRD and for clients that still speak it.
"""

from pydantic import Field

from kaito.api.workspace.inference import InferenceSpec
from kaito.api.workspace.resource import ResourceSpec
from kaito.api.workspace.status import WorkspaceStatus
from kaito.api.workspace.tuning import TuningSpec
from kaito.runtime.meta import Resource

NAME_LIMIT = 52
"""Longest Workspace name. The StatefulSet's pods carry the label `controller-revision-hash`, whose value
`<name>-<10 characters>` must fit 63 (Kubernetes: StatefulSet pods of longer names are never created)."""


class Workspace(Resource, api="kaito.sh/v1beta1", kind="Workspace"):
    """A model to serve or to tune, and the GPU nodes it needs. Exactly one of inference and tuning."""

    resource: ResourceSpec
    """The nodes this workspace needs."""

    inference: InferenceSpec | None = None
    """Serve a model. Exclusive with tuning; cannot be added or removed later."""

    tuning: TuningSpec | None = None
    """Fine-tune a model. Exclusive with inference; cannot be added or removed later."""

    status: WorkspaceStatus = Field(default_factory=WorkspaceStatus)
    """Observed state, written by the workspace controller."""

    @property
    def preset_name(self) -> str:
        """Name of the preset served or tuned, in lower case; empty for a pod template."""
        preset = self.inference.preset if self.inference else self.tuning.preset if self.tuning else None
        return preset.name.lower() if preset else ""


class WorkspaceV1Alpha1(Workspace, api="kaito.sh/v1alpha1"):
    """A model to serve or to tune, and the GPU nodes it needs. Exactly one of inference and tuning."""
