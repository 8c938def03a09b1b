"""The kind `ConfigDistribution`, and its CustomResourceDefinition."""

from typing import Any

from kaito.runtime import Condition, LabelSelector, Model, Resource
from kaito.runtime.crd import Column, Field, Version, crd, to_yaml


class ConfigDistributionSpec(Model):
    """Desired state."""

    selector: LabelSelector
    """ConfigMaps and Secrets of the same namespace that are copied."""
    clusters: LabelSelector = LabelSelector()
    """Clusters that get the copies, by the labels of their Secrets; all when empty."""
    cleanup_timeout_seconds: int = Field(default=600, ge=0)
    """Time for which a deletion waits for clusters that cannot be reached."""


class ClusterCopies(Model):
    """Observed state of one cluster."""

    name: str
    copies: int = 0
    """Number of objects that are current."""
    problem: str = ""
    """Why they are not; empty when they are."""


class ConfigDistributionStatus(Model):
    """Observed state."""

    clusters: list[ClusterCopies] = []
    conditions: list[Condition] = []


class ConfigDistribution(Resource, api="config.example.com/v1", kind="ConfigDistribution"):
    """Copies ConfigMaps and Secrets to other clusters."""

    spec: ConfigDistributionSpec
    status: ConfigDistributionStatus = ConfigDistributionStatus()


def definition() -> dict[str, Any]:
    """Returns the CustomResourceDefinition."""
    columns = [
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        Column("Message", '.status.conditions[?(@.type=="Ready")].message'),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ]
    return crd([Version(model=ConfigDistribution, storage=True, columns=columns)])


if __name__ == "__main__":
    print(to_yaml(definition()), end="")
