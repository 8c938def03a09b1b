"""Rules for scaling by load, of Workspaces and of InferenceSets."""

from collections.abc import Iterator

from kaito.api.violation import Violation
from kaito.api.windows import parse_duration, schedule_problem
from kaito.api.workspace.scaling import Autoscaling


def target_violations(scaling: Autoscaling, field: str) -> Iterator[Violation]:
    """Checks targets, steps and schedule.

    Args:
        scaling: the part of the object.
        field: its path.
    """
    target = scaling.target
    if target is None:
        if scaling.scale_up or scaling.scale_down or scaling.schedule:
            message = "is needed with scaleUp, scaleDown and schedule: set target.requests, or remove them"
            yield Violation(f"{field}.target", message)
        return
    if not (target.requests or target.queue_seconds or target.cache_usage_percent):
        yield Violation(f"{field}.target", "is empty: set requests, for example 16")
    if scaling.max_replicas is None:
        message = "is needed with target, because every copy costs a node: set it"
        yield Violation(f"{field}.maxReplicas", message)
    for index, window in enumerate(scaling.schedule):
        path = f"{field}.schedule[{index}]"
        if problem := schedule_problem(window.schedule):
            yield Violation(f"{path}.schedule", problem)
        try:
            parse_duration(window.duration)
        except ValueError as error:
            yield Violation(f"{path}.duration", str(error))
        if scaling.max_replicas is not None and window.min_replicas > scaling.max_replicas:
            message = f"{window.min_replicas} is more than maxReplicas {scaling.max_replicas}: lower it"
            yield Violation(f"{path}.minReplicas", message)
