"""Leases, for leader election."""

from pydantic import Field

from kaito.runtime.meta import MicroTime, Model, Resource


class LeaseSpec(Model):
    """Holder and times of a lease."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: MicroTime | None = None
    renew_time: MicroTime | None = None
    lease_transitions: int | None = None
    preferred_holder: str | None = None
    strategy: str | None = None


class Lease(Resource, api="coordination.k8s.io/v1", kind="Lease"):
    """Lock that expires unless it is renewed."""

    spec: LeaseSpec = Field(default_factory=LeaseSpec)
