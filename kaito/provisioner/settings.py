"""What the provisioner can be told, validated once.

`kaito.provisioner.flags` builds it from the command line and the environment, tests build it by hand; nothing below
`main` reads either. Durations are seconds.
"""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class NodeApi(StrEnum):
    """Which kinds of claims are served."""

    MACHINE = "machine"
    """Karpenter `Machine` (karpenter.sh/v1alpha5)."""
    NODECLAIM = "nodeclaim"
    """Karpenter `NodeClaim` (karpenter.sh/v1)."""
    BOTH = "both"
    """Both; both definitions must be installed."""
    AUTO = "auto"
    """Those whose definitions are installed when the process starts."""


class ProvisionerSettings(BaseModel):
    """Settings of the provisioner itself; those every manager has are `kaito.runtime.Settings`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    installation: str = ""
    """Who we are on shared clouds; empty takes the UID of the cluster's `kube-system` namespace."""

    workers: int = Field(default=20, ge=1)
    """Claims worked on at once; a worker never waits for a machine."""

    poll_interval: float = Field(default=15.0, gt=0)
    """Between looks at an operation when the cloud names no time."""

    launch_timeout: float = Field(default=2700.0, gt=0)
    """A claim whose instance is still being created after this long is deleted; sizes with eight or more GPUs get twice
    as long. Recorded on AKS: 3 to 4 minutes for small pools, 26 minutes for an ND96asr_v4 pool."""

    registration_timeout: float = Field(default=900.0, gt=0)
    """A launched claim whose node has not joined after this long is deleted (Karpenter: 15 minutes)."""

    initialization_timeout: float = Field(default=1200.0, gt=0)
    """A node that is not usable this long after joining is reported (Warning event, condition)."""

    replace_uninitialized: bool = False
    """Delete the claim, too, when its node is not usable in time."""

    quota_retry: float = Field(default=600.0, gt=0)
    """Between attempts while the quota is exceeded."""

    capacity_retry: float = Field(default=300.0, gt=0)
    """After the first attempt without capacity; doubles up to `capacity_retry_cap`."""

    capacity_retry_cap: float = Field(default=1800.0, gt=0)

    out_of_stock: float = Field(default=3600.0, ge=0)
    """How long an offer (size, zone, capacity type) that the cloud refused comes last in claims that list several."""

    denied_retry: float = Field(default=300.0, gt=0)
    """Between attempts while our identity is refused or the cluster is missing."""

    trouble_retry: float = Field(default=5.0, gt=0)
    """After the first 5xx or unanswered request; doubles up to a minute."""

    default_disk_gib: int = Field(default=0, ge=0)
    """Disk of claims that do not request `storage`; 0 refuses them, as upstream does."""

    default_grace_period: float = Field(default=1800.0, ge=0)
    """How long draining may take for claims that do not say; 0 waits for ever."""

    collect_every: float = Field(default=120.0, gt=0)
    """Between scans for instances without a claim and claims without an instance."""

    orphan_grace: float = Field(default=300.0, ge=0)
    """An instance younger than this is no orphan yet."""

    orphans_at_once: int = Field(default=5, ge=1)
    """Instances deleted in one scan at most, so that a mistake has a limit."""

    collect_dry_run: bool = False
    """Only report orphans."""
