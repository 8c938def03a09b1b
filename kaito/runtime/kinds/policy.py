"""PodDisruptionBudgets, which limit evictions."""

from pydantic import Field

from kaito.runtime.meta import Condition, IntOrString, LabelSelector, Model, Resource, Time


class PodDisruptionBudgetSpec(Model):
    """Selected pods and one of the two limits."""

    selector: LabelSelector | None = None
    min_available: IntOrString | None = None
    max_unavailable: IntOrString | None = None
    unhealthy_pod_eviction_policy: str | None = None
    """`IfHealthyBudget` or `AlwaysAllow`, or a value of a newer API server."""


class PodDisruptionBudgetStatus(Model):
    """Number of pods that may be evicted now."""

    observed_generation: int = 0
    disruptions_allowed: int = 0
    current_healthy: int = 0
    desired_healthy: int = 0
    expected_pods: int = 0
    conditions: list[Condition] = []
    disrupted_pods: dict[str, Time] = {}


class PodDisruptionBudget(Resource, api="policy/v1", kind="PodDisruptionBudget"):
    """Limit of evictions."""

    spec: PodDisruptionBudgetSpec = Field(default_factory=PodDisruptionBudgetSpec)
    status: PodDisruptionBudgetStatus = Field(default_factory=PodDisruptionBudgetStatus)
