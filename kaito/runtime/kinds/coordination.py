"""Leases: who leads, and since when."""

from kaito.runtime.meta import MicroTime, Model, Resource


class LeaseSpec(Model):
    """The record leader election agrees on."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: MicroTime | None = None
    renew_time: MicroTime | None = None
    lease_transitions: int | None = None


class Lease(Resource, api="coordination.k8s.io/v1", kind="Lease"):
    """A lock with an expiry."""

    spec: LeaseSpec = LeaseSpec()
