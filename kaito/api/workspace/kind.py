"""The Workspace kind in both served versions.

v1beta1 is stored. v1alpha1 has the same field tree, so the API server converts by rewriting `apiVersion` alone
(strategy `None`) and nothing is lost either way. Controllers use `Workspace` (v1beta1) only; `WorkspaceV1Alpha1` exists
for the CRD and for clients that still speak it.
"""

from typing import ClassVar

from pydantic import Field

from kaito.api.workspace.inference import InferenceSpec
from kaito.api.workspace.resource import ResourceSpec
from kaito.api.workspace.status import WorkspaceStatus
from kaito.api.workspace.tuning import TuningSpec
from kaito.runtime.crd import Rule
from kaito.runtime.meta import Resource

NAME_LIMIT = 52
"""Longest Workspace name. The StatefulSet's pods carry the label `controller-revision-hash`, whose value
`<name>-<10 characters>` must fit 63 (Kubernetes: StatefulSet pods of longer names are never created)."""


class Workspace(Resource, api="kaito.sh/v1beta1", kind="Workspace"):
    """A model to serve or to tune, and the GPU nodes it needs. Exactly one of inference and tuning."""

    rules: ClassVar = [
        # The API server allows no field path into metadata, so these two name the field in the message.
        Rule(
            f"size(self.metadata.name) <= {NAME_LIMIT}",
            f"metadata.name is too long for the Service and pods of that name: use at most {NAME_LIMIT} characters",
        ),
        Rule(
            "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "metadata.name cannot name a Service: begin with a lower-case letter, go on with such letters, digits "
            "and '-', end with a letter or digit",
        ),
        Rule(
            "has(self.inference) || has(self.tuning)",
            "neither inference nor tuning is set: set one, for example inference.preset.name",
            field_path=".inference",
        ),
        Rule(
            "!(has(self.inference) && has(self.tuning))",
            "inference and tuning are both set: remove one, or make a second Workspace",
            field_path=".tuning",
        ),
        Rule(
            "has(self.inference) == has(oldSelf.inference)",
            "cannot be added or removed later: delete the Workspace and create a new one",
            field_path=".inference",
        ),
        Rule(
            "has(self.tuning) == has(oldSelf.tuning)",
            "cannot be added or removed later: delete the Workspace and create a new one",
            field_path=".tuning",
        ),
        Rule(
            "!has(self.tuning) || !has(self.resource.count) || self.resource.count <= 1",
            "a tuning Job runs on one node: set resource.count to 1 or remove it",
            field_path=".resource.count",
        ),
        Rule(
            "!has(self.tuning) || !has(self.resource.partition)",
            "tuning takes a whole node: remove resource.partition",
            field_path=".resource.partition",
        ),
    ]

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
