"""Machine, `karpenter.sh/v1alpha5`: Karpenter's node request before v1, and the one Kaito's founding contract names."""

from typing import ClassVar

from pydantic import Field

from kaito.api.karpenter import conditions
from kaito.api.karpenter.claim import Claim, ClaimSpec, ClaimStatus
from kaito.api.schema import ObjectName, RawObject
from kaito.runtime.meta import Model


class MachineTemplateRef(Model):
    """The cloud provider's template, by name."""

    api_version: str = ""
    """API version of the template."""

    kind: str = ""
    """Kind of the template."""

    name: ObjectName
    """Name of the template. Kaito puts the Machine's own name here."""


class MachineSpec(ClaimSpec):
    """The node that is asked for."""

    machine_template_ref: MachineTemplateRef | None = None
    """The cloud provider's template; gpu-provisioner does not read it."""

    kubelet: RawObject | None = None
    """Kubelet settings of Karpenter v1alpha5. Kept as they came; gpu-provisioner has no use for them, because AKS
    configures the kubelet itself."""


class MachineStatus(ClaimStatus):
    """What became of the request."""


class Machine(Claim, api="karpenter.sh/v1alpha5", kind="Machine", namespaced=False):
    """A request for one node (Karpenter before v1)."""

    stages: ClassVar[conditions.Stages] = conditions.MACHINE_STAGES

    spec: MachineSpec = Field(default_factory=MachineSpec)  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen
    """The node that is asked for."""

    status: MachineStatus = Field(default_factory=MachineStatus)  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen
    """What became of it."""
