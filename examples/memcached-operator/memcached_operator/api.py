"""The kind `Memcached`, and its CustomResourceDefinition."""

from typing import Any

from kaito.runtime import Condition, Model, Resource
from kaito.runtime.crd import Column, Field, Version, crd, to_yaml


class MemcachedSpec(Model):
    """Desired state."""

    size: int = Field(default=1, ge=1, le=20)
    """Number of servers."""
    memory_mib: int = Field(default=64, ge=8)
    """Memory of each server for items, in MiB."""
    auth_secret: str | None = None
    """Secret whose key `auth` contains `user:password` lines; without it, clients connect without authentication."""
    drain_seconds: int = Field(default=30, ge=0, le=600)
    """Time between the deletion of the Service and of the servers."""


class MemcachedStatus(Model):
    """Observed state."""

    ready_replicas: int = 0
    conditions: list[Condition] = []


class Memcached(Resource, api="cache.example.com/v1", kind="Memcached"):
    """A number of memcached servers behind one Service."""

    spec: MemcachedSpec = MemcachedSpec()
    status: MemcachedStatus = MemcachedStatus()


def definition() -> dict[str, Any]:
    """Returns the CustomResourceDefinition."""
    columns = [
        Column("Size", ".spec.size", "integer"),
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ]
    return crd([Version(model=Memcached, storage=True, columns=columns)], short_names=["mc"])


if __name__ == "__main__":
    print(to_yaml(definition()), end="")
