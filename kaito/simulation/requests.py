"""The invariants about requests to Azure: when an agent pool may be requested again, and when it may be deleted.

They follow the requests themselves, because the state of the cloud does not contain the refused ones.
"""

import asyncio
import json
from collections.abc import Iterator
from typing import Any, Final, Protocol, final

from kaito.cloud.azure.simulator.http import ArmRequest, ArmResponse
from kaito.runtime.testing.simulate import Finding, Process, Run
from kaito.runtime.testing.simulate.counts import HourlyCounts

CREATIONS_PER_HOUR: Final = 30
"""Requests to create one agent pool in an hour, with pauses after each refusal."""

PAUSE_SECONDS: Final = 30.0
"""Shortest time between the refusal of an agent pool and the next request for the same one. The pauses of a process are
300 s and longer for capacity, quota and permissions."""

REQUESTED_SECONDS: Final = 300.0
"""How long a failed agent pool may exist without a request to delete it."""

REFUSED: Final = frozenset({400, 403})
"""Statuses of a refusal that time does not end soon: quota, capacity, instance type, permission."""

POOLS: Final = "/agentPools/"


class Claims(Protocol):
    """The claims of agent pools in the reference model."""

    retried: set[str]

    def serves(self, name: str) -> str:
        """Returns why the instance of a claim must not be deleted; empty if it may be."""
        ...

    def launch_pause(self, name: str) -> float:
        """Returns the seconds until the next attempt to launch a claim."""
        ...


@final
class CloudRequests:
    """Follows the requests of one run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._creations = HourlyCounts(CREATIONS_PER_HOUR, self._note_loop, asyncio.get_running_loop().time)
        self._refused: dict[tuple[str, str, str], float] = {}
        """Times of refusals by process, agent pool and what was requested."""
        self._deletions: set[str] = set()
        """Names of the agent pools whose deletion was requested since they were created."""

    def before(self, process: Process, request: ArmRequest, claims: Claims, pools: dict[str, Any]) -> None:
        """Checks a write immediately before it takes effect."""
        if POOLS not in request.path:
            return
        name = request.path.rpartition("/")[2]
        if request.method == "PUT":
            self._creations.add((name,))
            if name not in claims.retried:
                self._check_pause(process, name, request)
                wait = claims.launch_pause(name)
                if wait > 1.0:
                    text = f"{process.name} requests agent pool {name} {wait:.0f} s before its next attempt"
                    self._run.fail("no buying in a loop", text)
        elif request.method == "DELETE":
            self._deletions.add(name)
            text = claims.serves(name)
            if text and name in pools and pools[name].state == "Succeeded":
                self._run.fail("no needed node is given back", f"{process.name} deletes agent pool {name}: {text}")

    def after(self, process: Process, request: ArmRequest, response: ArmResponse) -> None:
        """Notes the response to a write."""
        if request.method != "PUT" or POOLS not in request.path or response.drop:
            return
        name = request.path.rpartition("/")[2]
        key = (process.identity, name, _offering(request))
        self._deletions.discard(name)
        if response.status in REFUSED:
            self._refused[key] = self._run.now
        else:
            self._refused.pop(key, None)

    def check(self, pools: dict[str, Any]) -> Iterator[Finding]:
        """Returns the failed agent pools that no process deletes."""
        for name, pool in pools.items():
            if pool.state in {"Failed", "Canceled"} and name not in self._deletions:
                text = f"agent pool {name} is {pool.state}, and no process has requested its deletion"
                yield Finding("no failed instance is kept", text, REQUESTED_SECONDS)

    def _check_pause(self, process: Process, name: str, request: ArmRequest) -> None:
        refused = self._refused.get((process.identity, name, _offering(request)))
        if refused is None:
            return
        waited = self._run.now - refused
        if waited < PAUSE_SECONDS:
            text = f"{process.name} requests agent pool {name} again {waited:.1f} s after Azure has refused it"
            self._run.fail("no buying in a loop", text)

    def _note_loop(self, key: tuple[str, ...]) -> None:
        text = f"agent pool {key[0]} was requested more than {CREATIONS_PER_HOUR} times in an hour"
        self._run.fail("no buying in a loop", text)


def _offering(request: ArmRequest) -> str:
    """Returns the offering of a request for an agent pool: instance type, zones and capacity type."""
    body: dict[str, Any] = json.loads(request.body or b"{}")
    properties: dict[str, Any] = body.get("properties") or {}
    return f"{properties.get('vmSize')} {properties.get('availabilityZones')} {properties.get('scaleSetPriority')}"
