"""Settings of the provisioner, validated at start.

`kaito.provisioner.flags` builds them; no other module reads the command line or the environment.
"""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class NodeApi(StrEnum):
    """Kinds of claims to reconcile."""

    MACHINE = "machine"
    """Karpenter `Machine` (karpenter.sh/v1alpha5)."""
    NODECLAIM = "nodeclaim"
    """Karpenter `NodeClaim` (karpenter.sh/v1)."""
    BOTH = "both"
    """Both; the definitions of both must be installed."""
    AUTO = "auto"
    """Those whose definitions are installed when the process starts."""


class ProvisionerSettings(BaseModel):
    """Settings of the provisioner; the settings of every manager are `kaito.runtime.Settings`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    installation_id: str = ""
    """Name of this installation in the tags of agent pools; empty: the UID of the namespace `kube-system`."""

    concurrency: int = Field(default=20, ge=1)
    """Claims reconciled at the same time. A worker never waits for an instance."""

    poll_interval_seconds: float = Field(default=15.0, gt=0)
    """Requeue delay while an operation runs, if the cloud returns no `Retry-After`."""

    launch_timeout_seconds: float = Field(default=2700.0, gt=0)
    """Delete a claim whose instance is not created in this time; twice the time for 8 or more GPUs. Measured: 3 to
    4 minutes for small AKS pools, 26 minutes for an ND96asr_v4 pool."""

    registration_timeout_seconds: float = Field(default=900.0, gt=0)
    """Delete a launched claim whose node does not join in this time. 15 minutes as in Karpenter."""

    initialization_timeout_seconds: float = Field(default=1200.0, gt=0)
    """Report a node that is not usable in this time after it joined, by a condition and a Warning event."""

    replace_uninitialized: bool = False
    """Delete a claim whose node is not initialized in time."""

    quota_retry_seconds: float = Field(default=600.0, gt=0)
    """Retry delay while the quota is exceeded."""

    capacity_retry_seconds: float = Field(default=300.0, gt=0)
    """Retry delay after the first launch without capacity; doubles up to 30 minutes."""

    capacity_retry_cap_seconds: float = Field(default=1800.0, gt=0)
    """Longest retry delay of launches without capacity."""

    deprioritize_seconds: float = Field(default=3600.0, ge=0)
    """Time for which an unavailable offering (instance type, zone, capacity type) is tried after all others."""

    denied_retry_seconds: float = Field(default=300.0, gt=0)
    """Retry delay while the identity lacks a permission or the cluster does not exist."""

    transient_retry_seconds: float = Field(default=5.0, gt=0)
    """Retry delay after the first 5xx or request without a response; doubles up to two minutes."""

    default_disk_gib: int = Field(default=0, ge=0)
    """Disk of claims without a `storage` request; 0 rejects such claims, as upstream does."""

    default_termination_grace_period_seconds: float = Field(default=1800.0, ge=0)
    """Longest time for draining a node of a claim without a grace period; 0: no limit."""

    gc_interval_seconds: float = Field(default=120.0, gt=0)
    """Interval of garbage collection."""

    gc_grace_seconds: float = Field(default=300.0, ge=0)
    """Minimum age of an instance for garbage collection."""

    gc_limit: int = Field(default=5, ge=1)
    """Most instances that one garbage collection deletes, to limit the effect of a mistake."""

    gc_dry_run: bool = False
    """Report orphaned instances without deleting them."""
