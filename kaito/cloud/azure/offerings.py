"""What sizes the location offers and how much quota is left: read before anything is bought, and cached.

The listing has megabytes, so it is kept for hours; usage changes with every machine, so it is kept for seconds. A
stale listing is better than none. An identity that may not read them gets no check at all: creation will tell.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import final

from azure.mgmt.compute.models import ResourceSku

from kaito.cloud.azure.arm import Arm
from kaito.cloud.errors import (
    AccessDenied,
    CloudError,
    ErrorCategory,
    InstanceTypeUnavailable,
    QuotaExceeded,
)
from kaito.cloud.metrics import CloudMetrics
from kaito.cloud.provider import InstanceSpec, InstanceType
from kaito.runtime.clock import monotonic
from kaito.runtime.logging import get_logger

LISTING_SECONDS = 12 * 3600.0
MISS_SECONDS = 300.0
"""Age at which the listing is read again for a size it does not have."""
USAGE_SECONDS = 20.0
DENIED_SECONDS = 900.0
"""Until the listing is asked for again after the identity was not allowed to read it."""
REGIONAL = "cores"
SPOT = "lowPriorityCores"
"""The usage that spot machines of all families draw on, and nothing else."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Offering:
    """One size, and whether this subscription may have it here."""

    type: InstanceType
    restricted: str = ""
    """Reason code of a restriction on the whole location; empty when there is none."""
    restricted_zones: frozenset[str] = frozenset()


@final
class Offerings:
    """Answers whether a plan has a chance."""

    def __init__(self, arm: Arm, metrics: CloudMetrics) -> None:
        self._arm = arm
        self._metrics = metrics
        self._location = arm.settings.location
        self._sizes: dict[str, Offering] = {}
        self._sizes_at: float | None = None
        self._usage: dict[str, tuple[int, int]] = {}
        self._usage_at: float | None = None
        self._denied_until: float | None = None
        self._lock = asyncio.Lock()

    async def find(self, instance_type: str) -> InstanceType | None:
        """What the size holds, or None when it is unknown here or we may not ask."""
        offering = await self._offering(instance_type)
        return offering.type if offering else None

    async def check_availability(self, plan: InstanceSpec) -> None:
        """Raise the reason why the plan has no chance.

        Raises:
            InstanceTypeUnavailable: unknown, or restricted for the subscription or in every zone asked for.
            QuotaExceeded: fewer vCPUs left than one machine has.
        """
        offering = await self._offering(plan.instance_type)
        if offering is None and self._is_denied():
            return
        if offering is None:
            raise _not_sold(f"the VM size {plan.instance_type} is not offered in {self._location}")
        _check_offering(offering, plan, self._location)
        await self._check_quota(offering.type, spot=plan.spot)

    def spend(self, plan: InstanceSpec) -> None:
        """Count the vCPUs of a creation that was accepted, until usage is read again."""
        offering = self._sizes.get(plan.instance_type.lower())
        if offering is None:
            return
        for scope in _scopes(offering.type, spot=plan.spot):
            used, limit = self._usage.get(scope.lower(), (0, 0))
            if scope.lower() in self._usage:
                self._usage[scope.lower()] = (used + offering.type.vcpus, limit)

    async def _check_quota(self, size: InstanceType, *, spot: bool) -> None:
        usage = await self._fresh_usage()
        for scope in _scopes(size, spot=spot):
            known = usage.get(scope.lower())
            if known is None:
                continue
            used, limit = known
            if limit - used < size.vcpus:
                raise QuotaExceeded(
                    f"{size.name} needs {size.vcpus} vCPUs of quota {scope} in {self._location}: "
                    f"limit {limit}, in use {used}, left {max(limit - used, 0)}",
                    code="QuotaExceeded",
                    regional=scope == REGIONAL,
                )

    async def _offering(self, instance_type: str) -> Offering | None:
        key = instance_type.lower()
        async with self._lock:
            age = monotonic() - self._sizes_at if self._sizes_at is not None else None
            wanted = age is None or age > LISTING_SECONDS or (key not in self._sizes and age > MISS_SECONDS)
            if wanted and not self._is_denied():
                await self._read_sizes()
        return self._sizes.get(key)

    async def _read_sizes(self) -> None:
        try:
            location = await self.location()
            self._sizes = await self._arm.call("list_sizes", lambda: self._list_sizes(location))
        except AccessDenied as error:
            self._denied_until = monotonic() + DENIED_SECONDS
            log.warning("sizes and quota cannot be checked before creation", reason=str(error))
        except CloudError as error:
            if self._sizes_at is None:
                raise
            log.warning("keeping the old list of sizes", reason=str(error))
        else:
            self._sizes_at, self._denied_until = monotonic(), None

    def _is_denied(self) -> bool:
        """Whether the identity was not allowed to read the listing a short while ago."""
        return self._denied_until is not None and monotonic() < self._denied_until

    async def _list_sizes(self, location: str) -> dict[str, Offering]:
        found: dict[str, Offering] = {}
        async for sku in self._arm.compute.resource_skus.list(filter=f"location eq '{location}'"):
            if sku.resource_type == "virtualMachines" and sku.name:
                found[sku.name.lower()] = _offering(sku, location)
        return found

    async def _fresh_usage(self) -> dict[str, tuple[int, int]]:
        async with self._lock:
            if self._usage_at is not None and monotonic() - self._usage_at < USAGE_SECONDS:
                return self._usage
            try:
                location = await self.location()
                self._usage = await self._arm.call("list_usage", lambda: self._list_usage(location))
            except AccessDenied as error:
                log.warning("quota cannot be checked before creation", reason=str(error))
                self._usage = {}
            self._usage_at = monotonic()
            return self._usage

    async def _list_usage(self, location: str) -> dict[str, tuple[int, int]]:
        found: dict[str, tuple[int, int]] = {}
        async for usage in self._arm.compute.usage.list(location):
            family = (usage.name.value if usage.name else None) or ""
            found[family.lower()] = (usage.current_value, usage.limit)
            self._metrics.quota.labels(family).set(usage.limit - usage.current_value)
        return found

    async def location(self) -> str:
        """The cluster's region; asked of the cluster once when it was not configured."""
        if not self._location:
            settings = self._arm.settings
            cluster = await self._arm.call(
                "get_cluster",
                lambda: self._arm.containers.managed_clusters.get(settings.resource_group, settings.cluster),
            )
            self._location = cluster.location or ""
        return self._location


def _scopes(size: InstanceType, *, spot: bool) -> tuple[str, ...]:
    """The usages that a machine draws on. The family's counts on-demand machines only."""
    return (SPOT,) if spot else (size.family, REGIONAL)


def _check_offering(offering: Offering, plan: InstanceSpec, location: str) -> None:
    name, size = plan.instance_type, offering.type
    if offering.restricted:
        raise _not_sold(f"the VM size {name} is restricted in {location}: {offering.restricted}")
    if plan.spot and not size.spot:
        raise _not_sold(f"the VM size {name} is not sold as spot capacity in {location}: use on-demand capacity")
    if not plan.zones:
        return
    asked = ", ".join(plan.zones)
    if offering.restricted_zones.issuperset(plan.zones):
        raise _not_sold(f"the VM size {name} is restricted in zone {asked} of {location}", ErrorCategory.ZONE)
    if size.zones is not None and not set(size.zones) & set(plan.zones):
        offered = f"in zone {', '.join(size.zones)}" if size.zones else "only without a zone"
        message = f"the VM size {name} is offered {offered} of {location}, not in zone {asked}"
        raise _not_sold(message, ErrorCategory.ZONE, code="AvailabilityZoneNotSupported")


def _not_sold(
    message: str, category: ErrorCategory = ErrorCategory.SIZE, *, code: str = "SkuNotAvailable"
) -> InstanceTypeUnavailable:
    return InstanceTypeUnavailable(message, code=code, category=category)


def _offering(sku: ResourceSku, location: str) -> Offering:
    capabilities = {entry.name or "": entry.value or "" for entry in sku.capabilities or []}
    restricted, closed = "", set[str]()
    for restriction in sku.restrictions or []:
        kind, info = _text(restriction.type), restriction.restriction_info
        named = [*(restriction.values_property or []), *((info.locations if info else None) or [])]
        if kind == "Location" and _names(named, location):
            restricted = _text(restriction.reason_code) or "restricted"
        elif kind == "Zone" and info is not None:
            closed.update(info.zones or [])
    return Offering(
        type=InstanceType(
            name=sku.name or "",
            vcpus=_whole(capabilities.get("vCPUsAvailable") or capabilities.get("vCPUs", "")),
            memory_gib=_number(capabilities.get("MemoryGB", "")),
            gpus=_whole(capabilities.get("GPUs", "")),
            family=sku.family or "",
            architecture=capabilities.get("CpuArchitectureType", "x64"),
            zones=_zones(sku, location, closed),
            spot=capabilities.get("LowPriorityCapable", "").lower() != "false",
            location=location,
        ),
        restricted=restricted,
        restricted_zones=frozenset(closed),
    )


def _zones(sku: ResourceSku, location: str, closed: set[str]) -> tuple[str, ...] | None:
    """Zones of the size that are open to the subscription; None when the listing has nothing about the location."""
    entries = [entry for entry in sku.location_info or [] if (entry.location or "").lower() == location.lower()]
    if not entries:
        return None
    return tuple(sorted({zone for entry in entries for zone in entry.zones or []} - closed))


def _names(values: Iterable[str], location: str) -> bool:
    return location.lower() in {value.lower() for value in values}


def _text(value: object) -> str:
    """The wire's word: the SDK gives members of string enums for words it knows."""
    return str(value.value) if isinstance(value, Enum) else str(value or "")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _whole(text: str) -> int:
    return int(_number(text))
