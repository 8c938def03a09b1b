"""Answers the questions of KEDA's external-scaler protocol from the cache and the load of the servers.

KEDA decides about the number of copies above zero. Kaito scales to zero and back, because it hands the requests over to
the activator first: an object with copies is always active, and one without copies while requests to it are held.
"""

from collections.abc import Callable, Sequence
from typing import Final, Literal, final

from kaito.api import InferenceSet, Workspace, conditions, labels
from kaito.models.copies import copies_per_workspace
from kaito.runtime.client import Api
from kaito.runtime.errors import KaitoRuntimeError
from kaito.runtime.kinds import Pod
from kaito.runtime.meta import ObjectKey, find_condition
from kaito.workspace.failure import shorten
from kaito.workspace.indexes import PODS
from kaito.workspace.keda.loads import LoadReader
from kaito.workspace.keda.trigger import Metric, Trigger
from kaito.workspace.scaling.copies import ready_copies
from kaito.workspace.scaling.load import Observation

Status = Literal["NOT_FOUND", "FAILED_PRECONDITION", "INVALID_ARGUMENT", "UNAVAILABLE"]
"""Names of status codes of gRPC. With UNAVAILABLE, KEDA keeps the number of copies and tries again."""

_MAX_CAUSE_CHARACTERS: Final = 200


class ScalerError(Exception):
    """A question that cannot be answered.

    Args:
        status: status code of gRPC.
        message: what is wrong, where, and what to do.
    """

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status: Status = status


@final
class KedaScaler:
    """Answers for all Workspaces and InferenceSets of the cluster.

    Args:
        api: returns the API, which exists once the manager has started.
        loads: reads the load of the servers.
        held: returns the number of requests to a Workspace that this process holds.
    """

    def __init__(self, api: Callable[[], Api], loads: LoadReader, held: Callable[[ObjectKey], int]) -> None:
        self._api = api
        self._loads = loads
        self._held = held

    async def is_active(self, trigger: Trigger) -> bool:
        """Whether the object has copies, or requests to it are held.

        Raises:
            ScalerError: the object does not exist or is not scaled by KEDA.
        """
        found = await self._find(trigger)
        return _replicas(found) != 0 or self._held_requests(found) > 0

    async def value(self, trigger: Trigger, metric: str) -> float:
        """Returns the value of a metric for a target of the type AverageValue: the sum over all copies.

        KEDA divides it by the number of Workspaces of an InferenceSet. If each of them has several copies, the sum is
        divided by their number, so that the target is that of a copy.

        Raises:
            ScalerError: the metric has no target, the object does not exist, or its load is unknown.
        """
        known: Metric | None = next((each for each in trigger.targets if each == metric), None)
        if known is None:
            names = ", ".join(trigger.targets)
            raise ScalerError("INVALID_ARGUMENT", f"metric {metric!r} has no target in the trigger; it has: {names}")
        found = await self._find(trigger)
        if _replicas(found) == 0:
            return float(self._held_requests(found)) if known == "requests" else 0.0
        pods = ready_copies(await self._pods(found))
        if not pods:
            raise ScalerError("UNAVAILABLE", f"no copy of {_title(found)} is ready{_cause(found)}")
        reading = await self._loads.read(f"{found.kind}/{found.key}/{found.uid}", pods)
        if not reading.observation.reported:
            raise ScalerError(
                "UNAVAILABLE",
                f"none of the {len(pods)} ready copies of {_title(found)} reports its load: /metrics of the server "
                "has no number of running requests, or does not answer",
            )
        if known == "queue-seconds" and reading.is_first:
            raise ScalerError("UNAVAILABLE", "the mean time in the queue is known from the second request on")
        copies = copies_per_workspace(found) if isinstance(found, InferenceSet) else 1
        return self._value_of(found, reading.observation, known) / copies

    def _value_of(self, found: Workspace | InferenceSet, seen: Observation, metric: Metric) -> float:
        match metric:
            case "requests":
                # Copies that did not report have the load of the others.
                return seen.requests * seen.copies / seen.reported + self._held_requests(found)
            case "queue-seconds":
                mean = seen.queue_seconds
            case "cache-usage-percent":
                mean = None if seen.cache_usage is None else seen.cache_usage * 100
        if mean is None:
            raise ScalerError(
                "FAILED_PRECONDITION",
                f"the servers of {_title(found)} do not report {metric}, only vLLM does: use metadata.requests",
            )
        return mean * seen.copies

    async def _find(self, trigger: Trigger) -> Workspace | InferenceSet:
        kind: type[Workspace | InferenceSet] = Workspace if trigger.kind == "Workspace" else InferenceSet
        try:
            found = await self._api().find(kind, trigger.key.name, trigger.key.namespace)
        except KaitoRuntimeError as error:
            raise ScalerError("UNAVAILABLE", f"{trigger.kind} {trigger.key} cannot be read: {error}") from error
        if found is None or found.deleting:
            field = "workspace" if trigger.kind == "Workspace" else "inferenceSet"
            raise ScalerError(
                "NOT_FOUND",
                f"{trigger.kind} {trigger.key} does not exist: metadata.{field} of the trigger must be the name of a "
                f"{trigger.kind} in the namespace of the ScaledObject",
            )
        if isinstance(found, Workspace) and found.inference is None:
            raise ScalerError("FAILED_PRECONDITION", f"Workspace {trigger.key} is for tuning, which has no copies")
        if found.spec.autoscaling is not None and found.spec.autoscaling.target is not None:
            raise ScalerError(
                "FAILED_PRECONDITION",
                f"{trigger.kind} {trigger.key} has spec.autoscaling.target and is scaled by Kaito: remove the target "
                "or the ScaledObject",
            )
        return found

    async def _pods(self, found: Workspace | InferenceSet) -> Sequence[Pod]:
        api = self._api()
        if isinstance(found, Workspace):
            return await api.list(Pod, index=PODS(str(found.key)))
        selector = {labels.CREATED_BY_INFERENCESET: found.name}
        return await api.list(Pod, namespace=found.namespace, labels=selector)

    def _held_requests(self, found: Workspace | InferenceSet) -> int:
        return self._held(found.key) if isinstance(found, Workspace) else 0


def _replicas(found: Workspace | InferenceSet) -> int | None:
    """Returns the number of copies that is requested; None if it follows from `resource.count`."""
    return found.spec.replicas


def _title(found: Workspace | InferenceSet) -> str:
    return f"{found.kind} {found.key}"


def _cause(found: Workspace | InferenceSet) -> str:
    """Returns what the object reports about copies that are not ready, after a colon; empty if nothing."""
    if not isinstance(found, Workspace):
        return ""
    ready = find_condition(found.status.conditions, conditions.INFERENCE_READY)
    return "" if ready is None or ready.is_true else f": {shorten(ready.message, _MAX_CAUSE_CHARACTERS)}"
