"""Machine, `karpenter.sh/v1alpha5`: the claim of Karpenter before v1, and the default of `--node-api`."""

from typing import ClassVar

from pydantic import Field

from kaito.api.karpenter import conditions
from kaito.api.karpenter.claim import Claim, ClaimSpec, ClaimStatus
from kaito.api.schema import ObjectName, RawObject
from kaito.runtime.meta import Model


class MachineTemplateRef(Model):
    """Reference to the cloud provider's template."""

    api_version: str = ""
    """API version of the template."""

    kind: str = ""
    """Kind of the template."""

    name: ObjectName
    """Name of the template. Kaito sets the name of the Machine."""


class MachineSpec(ClaimSpec):
    """Desired properties of the node."""

    machine_template_ref: MachineTemplateRef | None = None
    """The cloud provider's template; gpu-provisioner does not use it."""

    kubelet: RawObject | None = None
    """Kubelet settings of Karpenter v1alpha5. gpu-provisioner does not use them, because AKS configures the kubelet."""


class MachineStatus(ClaimStatus):
    """Observed state of the claim."""


class Machine(Claim, api="karpenter.sh/v1alpha5", kind="Machine", namespaced=False):
    """A claim of one node (Karpenter before v1)."""

    stages: ClassVar[conditions.Stages] = conditions.MACHINE_STAGES

    spec: MachineSpec = Field(default_factory=MachineSpec)  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen
    """Desired properties of the node."""

    status: MachineStatus = Field(default_factory=MachineStatus)  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen
    """Observed state of the claim."""
