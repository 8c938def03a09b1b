"""The kind `DnsRecord`, and its CustomResourceDefinition."""

from typing import Any

from kaito.runtime import Condition, Model, Resource
from kaito.runtime.crd import Column, Field, Version, crd, to_yaml


class DnsRecordSpec(Model):
    """Desired state."""

    host: str = Field(min_length=1, max_length=253)
    """Name of the record at the provider."""
    address: str = Field(min_length=1)
    """IP address to which the name resolves."""


class DnsRecordStatus(Model):
    """Observed state."""

    published_address: str = ""
    """Address at the provider."""
    conditions: list[Condition] = []


class DnsRecord(Resource, api="dns.example.com/v1", kind="DnsRecord"):
    """A record at a DNS provider."""

    spec: DnsRecordSpec
    status: DnsRecordStatus = DnsRecordStatus()


def definition() -> dict[str, Any]:
    """Returns the CustomResourceDefinition."""
    columns = [
        Column("Host", ".spec.host"),
        Column("Address", ".spec.address"),
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
    ]
    return crd([Version(model=DnsRecord, storage=True, columns=columns)])


if __name__ == "__main__":
    print(to_yaml(definition()), end="")
