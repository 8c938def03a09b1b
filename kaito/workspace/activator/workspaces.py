"""The Workspaces whose Services lead to the activator: their ports, ready copies, and when they are expected."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, final

from kaito.api import Workspace, conditions, labels
from kaito.runtime.client import Api
from kaito.runtime.clock import Clock
from kaito.runtime.errors import KaitoRuntimeError, NotFound
from kaito.runtime.kinds import Pod
from kaito.runtime.logging import get_logger
from kaito.runtime.meta import ObjectKey, find_condition
from kaito.workspace.activator.gate import Gate
from kaito.workspace.activator.metrics import ActivatorMetrics
from kaito.workspace.activator.proxy import Forecast
from kaito.workspace.failure import shorten

MIN_READY_SECONDS: Final = 5.0
"""Shortest forecast: the last start was shorter than this one."""

_MAX_CAUSE_CHARACTERS: Final = 200

_log = get_logger(__name__)


@final
class HeldWorkspace:
    """One Workspace whose requests the activator receives.

    Args:
        key: namespace and name.
        port: port of its listener.
        api: reads and scales it.
        metrics: counts wake-ups.
        clock: the current time, for forecasts.
    """

    def __init__(self, key: ObjectKey, port: int, api: Api, metrics: ActivatorMetrics, clock: Clock) -> None:
        self.key = key
        self.port = port
        self._api = api
        self._metrics = metrics
        self._clock = clock
        self._workspace: Workspace | None = None
        self.gate = Gate(self._wake)

    @property
    def name(self) -> str:
        """Namespace and name, for messages."""
        return str(self.key)

    def update(self, workspace: Workspace | None, pods: Sequence[Pod]) -> None:
        """Sets what the cluster contains; releases held requests if a copy is ready."""
        self._workspace = workspace
        self.gate.update(sorted(pod.status.pod_ip or "" for pod in pods if is_ready_copy(pod)))

    def forecast(self) -> Forecast:
        """Returns when a copy is expected to be ready, from the duration of the last start."""
        workspace = self._workspace
        if workspace is None:
            return Forecast()
        inference = find_condition(workspace.status.conditions, conditions.INFERENCE_READY)
        cause = "" if inference is None or inference.is_true else shorten(inference.message, _MAX_CAUSE_CHARACTERS)
        return Forecast(ready_in_seconds=ready_in_seconds(workspace, self._clock.now()), cause=cause)

    async def _wake(self) -> None:
        """Scales the Workspace up from zero. A failure is logged; the next attempt follows while requests wait."""
        try:
            current = await self._api.get(Workspace, self.key.name, self.key.namespace, consistency="live")
            scaling = current.spec.autoscaling
            if current.deleting or current.spec.replicas != 0 or scaling is None or not scaling.scales_to_zero:
                return
            await self._api.scale(current, 1)
        except NotFound:
            return
        except KaitoRuntimeError as error:
            self._metrics.wake_ups.labels("error").inc()
            _log.warning("workspace not woken", workspace=self.name, error=str(error))
            return
        self._metrics.wake_ups.labels("success").inc()
        _log.info("workspace woken", workspace=self.name)


def is_ready_copy(pod: Pod) -> bool:
    """Whether a pod answers requests: it is ready, and not a worker of a copy on several nodes."""
    role = pod.labels.get(labels.GROUP_ROLE, labels.LEADER)
    return pod.is_ready and not pod.deleting and bool(pod.status.pod_ip) and role == labels.LEADER


def ready_in_seconds(workspace: Workspace, now: datetime) -> float | None:
    """Returns the estimated time until a copy is ready; None if the Workspace has never been started from zero."""
    scaling = workspace.status.scaling
    if scaling is None or scaling.last_start_seconds is None:
        return None
    woken = scaling.woken_time
    elapsed = (now - woken).total_seconds() if woken is not None else 0.0
    return max(scaling.last_start_seconds - elapsed, MIN_READY_SECONDS)


@final
class HeldWorkspaces:
    """All Workspaces whose requests the activator receives."""

    def __init__(self) -> None:
        self._by_key: dict[ObjectKey, HeldWorkspace] = {}
        self._by_port: dict[int, HeldWorkspace] = {}

    def resolve(self, port: int) -> HeldWorkspace | None:
        """Returns the Workspace with a port; None if there is none."""
        return self._by_port.get(port)

    @property
    def known(self) -> Mapping[ObjectKey, HeldWorkspace]:
        """The Workspaces by key."""
        return self._by_key

    def add(self, held: HeldWorkspace) -> None:
        """Adds a Workspace, instead of one that had its port or its name before."""
        self.remove(held.key)
        if (former := self.resolve(held.port)) is not None:
            self.remove(former.key)
        self._by_key[held.key] = self._by_port[held.port] = held

    def remove(self, key: ObjectKey) -> None:
        """Removes a Workspace. Its held requests end with `Removed`."""
        removed = self._by_key.pop(key, None)
        if removed is not None:
            del self._by_port[removed.port]
            removed.gate.close()
