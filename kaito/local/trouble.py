"""The trouble buttons of `kaito up`: faults of the simulated cloud, and killed processes of pods."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import aiohttp

from kaito.api import labels
from kaito.cloud.azure.simulator.pools import REGIONAL_QUOTA
from kaito.console.trouble import Button, TroubleFailed
from kaito.console.views.money import Quota
from kaito.local.kubelet.agent import Kubelet
from kaito.runtime.client import Api
from kaito.runtime.kinds import Node

REQUEST_SECONDS: Final = 10.0

_QUOTA: Final = Button(
    id="quota",
    label="Quota used up",
    explains="The cloud rejects every new agent pool because the quota is exhausted. Create a Workspace or add a copy, "
    "and see how the claim reports it and when it tries again.",
)
_STOCK_OUT: Final = Button(
    id="stock-out",
    label="No capacity",
    explains="The cloud accepts new agent pools, and has no instances for them. Create a Workspace or add a copy, and "
    "see how the failed pool is removed and tried again.",
)
_EVICTION: Final = Button(
    id="eviction",
    label="Instance evicted",
    explains="The cloud deletes the instance of a node, as it does with spot capacity. A new claim replaces it.",
    target="node",
)
_NODE_LOST: Final = Button(
    id="node-lost",
    label="Node lost",
    explains="The kubelet of a node stops reporting. The node becomes Unknown after a while; see what is replaced, and "
    "when.",
    target="node",
)
_POD_KILLED: Final = Button(
    id="pod-killed",
    label="Server killed",
    explains="The processes of a pod are killed. The kubelet restarts them, and the Workspace is not ready meanwhile.",
    target="pod",
)
_RECOVERY: Final = Button(
    id="recovery",
    label="Cloud works again",
    explains="Removes all faults of the cloud, and lets lost nodes report again.",
)

BUTTONS: Final = (_QUOTA, _STOCK_OUT, _EVICTION, _NODE_LOST, _POD_KILLED, _RECOVERY)


@final
@dataclass(frozen=True, slots=True)
class LocalTrouble:
    """Causes trouble in a local cluster.

    Args:
        arm_url: address of the simulated cloud.
        kubelet: runs the pods.
        api: reads the nodes.
    """

    arm_url: str
    kubelet: Kubelet
    api: Api

    @property
    def buttons(self) -> Sequence[Button]:
        """The buttons."""
        return BUTTONS

    async def cause(self, button: str, target: str) -> str:
        """Causes trouble; returns what was done.

        Raises:
            TroubleFailed: there is no such target, or the simulated cloud does not answer.
        """
        actions: Mapping[str, Callable[[str], Awaitable[str]]] = {
            _QUOTA.id: self._exhaust_quota,
            _STOCK_OUT.id: self._run_out_of_stock,
            _EVICTION.id: self._evict,
            _NODE_LOST.id: self._lose_node,
            _POD_KILLED.id: self._kill_pod,
            _RECOVERY.id: self._recover,
        }
        return await actions[button](target)

    async def read_quota(self) -> list[Quota] | None:
        """Returns the quotas of the simulated cloud that are in use, and that of the region; None if it fails."""
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(f"{self.arm_url}/__admin/state") as response,
            ):
                state: dict[str, Any] = await response.json()
        except (aiohttp.ClientError, TimeoutError):
            return None
        quotas: dict[str, dict[str, int]] = state["quota"]
        return [
            Quota(family, each["used"], each["limit"])
            for family, each in quotas.items()
            if each["used"] or family == REGIONAL_QUOTA
        ]

    async def _exhaust_quota(self, _: str) -> str:
        await self._send("POST", "faults", {"named": "quota", "times": None})
        return f"every new agent pool is rejected for its quota, until you press {_RECOVERY.label!r}"

    async def _run_out_of_stock(self, _: str) -> str:
        await self._send("POST", "faults", {"named": "capacity", "times": None})
        return f"new agent pools fail without capacity, until you press {_RECOVERY.label!r}"

    async def _evict(self, target: str) -> str:
        pool = await self._pool_of(target)
        await self._send("DELETE", f"pools/{pool}")
        return f"the instance of node {target} is being deleted"

    async def _lose_node(self, target: str) -> str:
        pool = await self._pool_of(target)
        await self._send("PUT", "knobs", {"pool": pool, "heartbeat_stop": True})
        return f"node {target} does not report any more, until you press {_RECOVERY.label!r}"

    async def _kill_pod(self, target: str) -> str:
        namespace, _, name = target.partition("/")
        killed = self.kubelet.kill(namespace, name)
        if not killed:
            raise TroubleFailed(f"pod {target} runs no process: choose a pod that runs, as namespace/name")
        return f"{killed} process{'' if killed == 1 else 'es'} of pod {target} killed"

    async def _recover(self, _: str) -> str:
        await self._send("DELETE", "faults")
        await self._send("PUT", "knobs", {"heartbeat_stop": False})
        return "the cloud works again, and all nodes report"

    async def _pool_of(self, node: str) -> str:
        found = await self.api.find(Node, node)
        pool = found.labels.get(labels.AGENT_POOL) if found is not None else None
        if not pool:
            raise TroubleFailed(f"there is no node {node!r} of the simulated cloud: choose one of the chain")
        return pool

    async def _send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> None:
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.request(method, f"{self.arm_url}/__admin/{path}", json=body) as response,
            ):
                if response.status >= 400:
                    raise TroubleFailed(f"the simulated cloud answers {response.status}: {await response.text()}")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise TroubleFailed("the simulated cloud does not answer: see logs/arm-simulator.log") from error
