"""Disruption budgets: how many pods may be away at a time."""

from kaito.runtime.meta import Condition, LabelSelector, Model, Resource
from kaito.runtime.meta.model import IntOrString


class PodDisruptionBudgetSpec(Model):
    """Which pods, and how many of them stay; one of the two bounds."""

    selector: LabelSelector | None = None
    min_available: IntOrString | None = None
    max_unavailable: IntOrString | None = None
    unhealthy_pod_eviction_policy: str | None = None
    """`IfHealthyBudget` or `AlwaysAllow`, or a value of a newer API server."""


class PodDisruptionBudgetStatus(Model):
    """How many may go now."""

    observed_generation: int = 0
    disruptions_allowed: int = 0
    current_healthy: int = 0
    desired_healthy: int = 0
    expected_pods: int = 0
    conditions: list[Condition] = []


class PodDisruptionBudget(Resource, api="policy/v1", kind="PodDisruptionBudget"):
    """A bound on evictions."""

    spec: PodDisruptionBudgetSpec = PodDisruptionBudgetSpec()
    status: PodDisruptionBudgetStatus = PodDisruptionBudgetStatus()
