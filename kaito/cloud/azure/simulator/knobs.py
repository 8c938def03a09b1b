"""Settings of simulated nodes: when they join, when they become Ready, and how they fail."""

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress

from pydantic import BaseModel, ConfigDict


class Knobs(BaseModel):
    """Behavior of the nodes of one pool. Durations are simulated seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    join_fraction: float = 0.65
    """When the Node is created, as a part of the provisioning time; on AKS before the operation ends."""
    join_delay: float | None = None
    """Seconds from the PUT instead of a fraction."""
    provider_id_delay: float = 1.0
    """From the creation of the Node until the cloud node manager sets its providerID."""
    ready_delay: float = 10.0
    """From the creation of the Node until Ready."""
    gpu_delay: float = 30.0
    """From Ready until the device plugin registers the GPUs."""
    heartbeat_seconds: float = 10.0
    """Interval of lease renewals, in real seconds: the node controller of a real control plane measures them."""
    never_join: bool = False
    """No Node is created."""
    join_twice: bool = False
    """A second node joins, as in a surge upgrade."""
    gpu_count_override: int | None = None
    """GPUs, or slices of them, that the device plugin registers, instead of those of the size and the profile."""
    not_ready: bool = False
    """The kubelet reports NotReady; can be changed while the node runs."""
    heartbeat_stop: bool = False
    """The kubelet stops reporting: the node becomes Unknown after `unreachable_after`."""
    unreachable_after: float = 40.0
    """From the last report until the node controller marks the node as unreachable."""
    lowercase_resource_group: bool = False
    """The resource group in the providerID is in lower case, as sometimes on AKS."""
    evicted_after: float | None = None
    """The cloud evicts the virtual machine: the node has the notice of AKS, and is deleted this many seconds later.
    Takes effect on a node that runs. The agent pool stays, as with the eviction policy Delete."""
    vanishes: bool = False
    """The virtual machine disappears without a notice, as an eviction that Azure could not announce. Takes effect on a
    node that runs: it becomes Unknown, and is deleted. The agent pool stays."""
    node_outlives_pool: bool = False
    """The Node is not deleted with its pool, but within a minute after this ends."""


class KnobOverrides:
    """Knobs by name of the pool: the defaults, overridden by all settings whose pattern matches, the last one first."""

    def __init__(self, defaults: Knobs = Knobs()) -> None:
        self._defaults = defaults
        self._settings: list[tuple[re.Pattern[str], dict[str, object]]] = []
        self._merged: dict[str, Knobs] = {}
        self._changed = asyncio.Event()

    def set(self, pool: str = ".*", **changes: object) -> Callable[[], None]:
        """Overrides knobs of pools whose whole name matches the regular expression; returns a function that ends this.

        Raises:
            ValidationError: unknown knob or invalid value.
        """
        Knobs.model_validate({**self._defaults.model_dump(), **changes})
        setting = (re.compile(pool), changes)
        self._settings.append(setting)
        self._notify()

        def end() -> None:
            self._settings = [each for each in self._settings if each is not setting]
            self._notify()

        return end

    def clear(self) -> None:
        """Restores the defaults."""
        self._settings.clear()
        self._notify()

    def of(self, pool: str) -> Knobs:
        """The knobs of a pool."""
        if pool not in self._merged:
            merged: dict[str, object] = self._defaults.model_dump()
            for pattern, changes in self._settings:
                if pattern.fullmatch(pool):
                    merged |= changes
            self._merged[pool] = Knobs.model_validate(merged)
        return self._merged[pool]

    async def changed(self, within: float | None) -> None:
        """Waits until knobs are set or cleared, at most `within` seconds; None waits without a limit."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), within)

    def _notify(self) -> None:
        self._merged.clear()
        self._changed.set()
        self._changed = asyncio.Event()
