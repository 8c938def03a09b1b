"""The Workspace kind in both served versions.

v1beta1 is stored. v1alpha1 has the same fields, so that the API server converts by changing only `apiVersion` (strategy
`None`), without loss. Controllers use only `Workspace` (v1beta1); `WorkspaceV1Alpha1` exists for the CRD and for
clients of the old version.
"""

from typing import ClassVar

from pydantic import Field

from kaito.api.workspace.inference import InferenceSpec
from kaito.api.workspace.resource import ResourceSpec
from kaito.api.workspace.scaling import WorkspaceSpec
from kaito.api.workspace.status import WorkspaceStatus
from kaito.api.workspace.tuning import TuningSpec
from kaito.runtime.crd import Rule
from kaito.runtime.meta import Resource

NAME_LIMIT = 52
"""Longest name of a Workspace. The label `controller-revision-hash` of the StatefulSet's pods has the value
`<name>-<10 characters>`, which has at most 63 characters. Kubernetes never creates the pods of a longer name."""


class Workspace(Resource, api="kaito.sh/v1beta1", kind="Workspace"):
    """A model to serve or to tune, and the GPU nodes that it needs. Exactly one of inference and tuning."""

    rules: ClassVar = [
        # A CEL rule cannot have a field path into metadata, so the messages of these two name the field.
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
            "!has(self.tuning) || !has(self.spec) || !has(self.spec.replicas)",
            "a tuning Job is not scaled: remove spec.replicas",
            field_path=".spec.replicas",
        ),
        Rule(
            "!has(self.spec) || !has(self.spec.autoscaling) || (has(self.inference) && has(self.inference.preset))",
            "is only for presets, whose servers report their requests: remove spec.autoscaling",
            field_path=".spec.autoscaling",
        ),
        Rule(
            "!has(self.tuning) || !has(self.resource.partition)",
            "tuning takes a whole node: remove resource.partition",
            field_path=".resource.partition",
        ),
    ]

    spec: WorkspaceSpec = Field(default_factory=WorkspaceSpec)
    """How many copies of the model run."""

    resource: ResourceSpec
    """The nodes that the Workspace needs."""

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
    """A model to serve or to tune, and the GPU nodes that it needs. Exactly one of inference and tuning."""
