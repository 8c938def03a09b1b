"""The InferenceSet kind in both served versions.

v1beta1 is stored, and v1alpha1 has the same fields, as for Workspaces. Controllers use only `InferenceSet`.
"""

from typing import ClassVar

from pydantic import Field

from kaito.api.inference_set.spec import InferenceSetSpec
from kaito.api.inference_set.status import InferenceSetStatus
from kaito.api.workspace.kind import NAME_LIMIT as WORKSPACE_NAME_LIMIT
from kaito.runtime.crd import Rule
from kaito.runtime.meta import Resource

NAME_LIMIT = WORKSPACE_NAME_LIMIT - len("-9999")
"""Longest name of an InferenceSet: the names of its Workspaces are `<name>-<number>`."""


class InferenceSet(Resource, api="kaito.sh/v1beta1", kind="InferenceSet"):
    """A number of Workspaces that serve the same model behind one Service, each on its own nodes."""

    rules: ClassVar = [
        Rule(
            f"size(self.metadata.name) <= {NAME_LIMIT}",
            f"metadata.name is too long for the names of the Workspaces: use at most {NAME_LIMIT} characters",
        ),
        Rule(
            "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "metadata.name cannot name a Service: begin with a lower-case letter, go on with such letters, digits "
            "and '-', end with a letter or digit",
        ),
    ]

    spec: InferenceSetSpec
    """The desired state."""

    status: InferenceSetStatus = Field(default_factory=InferenceSetStatus)
    """Observed state, written by the workspace controller."""


class InferenceSetV1Alpha1(InferenceSet, api="kaito.sh/v1alpha1"):
    """A number of Workspaces that serve the same model behind one Service, each on its own nodes."""
