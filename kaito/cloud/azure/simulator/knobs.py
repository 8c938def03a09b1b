"""How the nodes of a pool behave: when they join, when they turn Ready, what goes wrong."""

import asyncio
import re
from contextlib import suppress

from pydantic import BaseModel, ConfigDict


class Knobs(BaseModel):
    """Behavior of the nodes of one pool. Durations are simulated seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    join_fraction: float = 0.65
    """When the node object appears, as a part of the provisioning time: usually before the operation ends."""
    join_delay: float | None = None
    """Seconds from the PUT instead of a fraction."""
    provider_id_delay: float = 1.0
    """From the node object's birth with an empty providerID until the cloud node manager fills it in."""
    ready_delay: float = 10.0
    """From the birth until Ready."""
    gpu_delay: float = 30.0
    """From Ready until the device plugin announces the GPUs."""
    heartbeat_seconds: float = 10.0
    """Between renewals of the node's lease."""
    never_join: bool = False
    join_twice: bool = False
    """A second machine joins, as in a surge upgrade."""
    gpu_count_override: int | None = None
    """GPUs announced, whatever the size holds."""
    not_ready: bool = False
    """The kubelet reports NotReady; turned on and off on a living node."""
    heartbeat_stop: bool = False
    """The kubelet falls silent: the node goes Unknown after `unreachable_after`."""
    unreachable_after: float = 40.0
    lowercase_resource_group: bool = False
    """Write the resource group of the providerID in lower case, as AKS sometimes does."""
    node_outlives_pool: bool = False
    """Nobody removes the node object after the machine is gone."""


class KnobBoard:
    """Knobs by pool name; the last setting whose pattern fits a pool counts, on top of the defaults."""

    def __init__(self, defaults: Knobs = Knobs()) -> None:
        self._defaults = defaults
        self._settings: list[tuple[re.Pattern[str], dict[str, object]]] = []
        self._merged: dict[str, Knobs] = {}
        self._changed = asyncio.Event()

    def set(self, pool: str = ".*", **changes: object) -> None:
        """Change knobs for pools whose whole name fits the regular expression.

        Raises:
            ValidationError: no such knob, or a bad value.
        """
        Knobs.model_validate({**self._defaults.model_dump(), **changes})
        self._settings.append((re.compile(pool), changes))
        self._wake()

    def clear(self) -> None:
        """Back to the defaults."""
        self._settings.clear()
        self._wake()

    def of(self, pool: str) -> Knobs:
        """The knobs in force for a pool."""
        if pool not in self._merged:
            merged: dict[str, object] = self._defaults.model_dump()
            for pattern, changes in self._settings:
                if pattern.fullmatch(pool):
                    merged |= changes
            self._merged[pool] = Knobs.model_validate(merged)
        return self._merged[pool]

    async def changed(self, within: float | None) -> None:
        """Wait until a knob is set or cleared, at most `within` seconds; None waits without a limit."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), within)

    def _wake(self) -> None:
        self._merged.clear()
        self._changed.set()
        self._changed = asyncio.Event()
