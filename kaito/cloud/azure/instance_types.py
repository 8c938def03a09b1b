"""Reads and caches the instance types (SKUs) of the region and the quota, to check instances before their creation.

The list of SKUs has several megabytes and is cached for hours; usage changes with every instance and is cached for
seconds. If the list cannot be read again, the stale one is used. If the identity lacks the permission to read it, no
check is made, and the creation returns the error.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, final

from kaito.cloud.azure.arm import ArmClient
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

if TYPE_CHECKING:
    from azure.mgmt.compute.models import ResourceSku

SKUS_TTL_SECONDS = 12 * 3600.0
MISSING_SKU_TTL_SECONDS = 300.0
"""Age at which the list is read again for an instance type that it does not contain."""
USAGE_TTL_SECONDS = 20.0
DENIED_SECONDS = 900.0
"""Time until the list is read again after the identity lacked the permission."""
REGIONAL_QUOTA = "cores"
SPOT_QUOTA = "lowPriorityCores"
"""The quota of all spot instances, which count for no other quota."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Sku:
    """An instance type and its restrictions for the subscription in the region."""

    instance_type: InstanceType
    restricted: str
    """Reason code of a restriction in the region; empty without one."""
    restricted_zones: frozenset[str]


@final
class InstanceTypes:
    """Checks instances against the SKUs of the region and the remaining quota."""

    def __init__(self, arm: ArmClient, metrics: CloudMetrics) -> None:
        self._arm = arm
        self._metrics = metrics
        self._location = arm.settings.location
        self._skus: dict[str, Sku] = {}
        self._skus_read_at: float | None = None
        self._usage: dict[str, tuple[int, int]] = {}
        self._usage_read_at: float | None = None
        self._denied_until: float | None = None
        self._lock = asyncio.Lock()

    async def find(self, instance_type: str) -> InstanceType | None:
        """Reads an instance type; None if the region does not have it or the identity may not read it."""
        sku = await self._sku(instance_type)
        return sku.instance_type if sku else None

    async def check_availability(self, spec: InstanceSpec) -> None:
        """Checks that an instance can be created, as far as the cached data shows.

        Raises:
            InstanceTypeUnavailable: not in the region, or restricted for the subscription or in all zones of the spec.
            QuotaExceeded: fewer vCPUs remain than the instance has.
        """
        sku = await self._sku(spec.instance_type)
        if sku is None and self._is_denied():
            return
        if sku is None:
            raise _unavailable(f"the VM size {spec.instance_type} is not offered in {self._location}")
        _check_sku(sku, spec, self._location)
        await self._check_quota(sku.instance_type, spot=spec.spot)

    def record_use(self, spec: InstanceSpec) -> None:
        """Adds the vCPUs of an accepted creation to the cached usage."""
        sku = self._skus.get(spec.instance_type.lower())
        if sku is None:
            return
        for quota in _quotas(sku.instance_type, spot=spec.spot):
            used, limit = self._usage.get(quota.lower(), (0, 0))
            if quota.lower() in self._usage:
                self._usage[quota.lower()] = (used + sku.instance_type.vcpus, limit)

    async def _check_quota(self, instance_type: InstanceType, *, spot: bool) -> None:
        usage = await self._fresh_usage()
        for quota in _quotas(instance_type, spot=spot):
            known = usage.get(quota.lower())
            if known is None:
                continue
            used, limit = known
            if limit - used < instance_type.vcpus:
                raise QuotaExceeded(
                    f"{instance_type.name} needs {instance_type.vcpus} vCPUs of quota {quota} in {self._location}: "
                    f"limit {limit}, in use {used}, left {max(limit - used, 0)}",
                    code="QuotaExceeded",
                    regional=quota == REGIONAL_QUOTA,
                )

    async def _sku(self, instance_type: str) -> Sku | None:
        key = instance_type.lower()
        async with self._lock:
            age = monotonic() - self._skus_read_at if self._skus_read_at is not None else None
            is_stale = (
                age is None or age > SKUS_TTL_SECONDS or (key not in self._skus and age > MISSING_SKU_TTL_SECONDS)
            )
            if is_stale and not self._is_denied():
                await self._read_skus()
        return self._skus.get(key)

    async def _read_skus(self) -> None:
        try:
            location = await self.location()
            self._skus = await self._arm.call("list_sizes", lambda: self._list_skus(location))
        except AccessDenied as error:
            self._denied_until = monotonic() + DENIED_SECONDS
            log.warning("reading instance types is not permitted: no checks before creation", error=str(error))
        except CloudError as error:
            if self._skus_read_at is None:
                raise
            log.warning("reading instance types failed, using the stale list", error=str(error))
        else:
            self._skus_read_at, self._denied_until = monotonic(), None

    def _is_denied(self) -> bool:
        """Whether the identity recently lacked the permission to read the list."""
        return self._denied_until is not None and monotonic() < self._denied_until

    async def _list_skus(self, location: str) -> dict[str, Sku]:
        found: dict[str, Sku] = {}
        async for sku in self._arm.compute.resource_skus.list(filter=f"location eq '{location}'"):
            if sku.resource_type == "virtualMachines" and sku.name:
                found[sku.name.lower()] = _parse_sku(sku, location)
        return found

    async def _fresh_usage(self) -> dict[str, tuple[int, int]]:
        async with self._lock:
            if self._usage_read_at is not None and monotonic() - self._usage_read_at < USAGE_TTL_SECONDS:
                return self._usage
            try:
                location = await self.location()
                self._usage = await self._arm.call("list_usage", lambda: self._list_usage(location))
            except AccessDenied as error:
                log.warning("reading usage is not permitted: no quota check before creation", error=str(error))
                self._usage = {}
            self._usage_read_at = monotonic()
            return self._usage

    async def _list_usage(self, location: str) -> dict[str, tuple[int, int]]:
        found: dict[str, tuple[int, int]] = {}
        async for usage in self._arm.compute.usage.list(location):
            family = (usage.name.value if usage.name else None) or ""
            found[family.lower()] = (usage.current_value, usage.limit)
            self._metrics.quota.labels(family).set(usage.limit - usage.current_value)
        return found

    async def location(self) -> str:
        """The region: configured, or read from the cluster once."""
        if not self._location:
            settings = self._arm.settings
            cluster = await self._arm.call(
                "get_cluster",
                lambda: self._arm.containers.managed_clusters.get(settings.resource_group, settings.cluster),
            )
            self._location = cluster.location or ""
        return self._location


def _quotas(instance_type: InstanceType, *, spot: bool) -> tuple[str, ...]:
    """Names of the quotas that an instance counts for. Family and regional quotas count on-demand instances only."""
    return (SPOT_QUOTA,) if spot else (instance_type.family, REGIONAL_QUOTA)


def _check_sku(sku: Sku, spec: InstanceSpec, location: str) -> None:
    name, instance_type = spec.instance_type, sku.instance_type
    if sku.restricted:
        raise _unavailable(f"the VM size {name} is restricted in {location}: {sku.restricted}")
    if spec.spot and not instance_type.spot:
        raise _unavailable(f"the VM size {name} is not offered as spot capacity in {location}: use on-demand capacity")
    if not spec.zones:
        return
    required = ", ".join(spec.zones)
    if sku.restricted_zones.issuperset(spec.zones):
        raise _unavailable(f"the VM size {name} is restricted in zone {required} of {location}", ErrorCategory.ZONE)
    if instance_type.zones is not None and not set(instance_type.zones) & set(spec.zones):
        offered = f"in zone {', '.join(instance_type.zones)}" if instance_type.zones else "only without a zone"
        message = f"the VM size {name} is offered {offered} of {location}, not in zone {required}"
        raise _unavailable(message, ErrorCategory.ZONE, code="AvailabilityZoneNotSupported")


def _unavailable(
    message: str, category: ErrorCategory = ErrorCategory.SIZE, *, code: str = "SkuNotAvailable"
) -> InstanceTypeUnavailable:
    return InstanceTypeUnavailable(message, code=code, category=category)


def _parse_sku(resource: "ResourceSku", location: str) -> Sku:
    capabilities = {entry.name or "": entry.value or "" for entry in resource.capabilities or []}
    restricted, restricted_zones = "", set[str]()
    for restriction in resource.restrictions or []:
        kind, info = _text(restriction.type), restriction.restriction_info
        locations = [*(restriction.values_property or []), *((info.locations if info else None) or [])]
        if kind == "Location" and _contains(locations, location):
            restricted = _text(restriction.reason_code) or "restricted"
        elif kind == "Zone" and info is not None:
            restricted_zones.update(info.zones or [])
    return Sku(
        instance_type=InstanceType(
            name=resource.name or "",
            vcpus=_parse_int(capabilities.get("vCPUsAvailable") or capabilities.get("vCPUs", "")),
            memory_gib=_parse_float(capabilities.get("MemoryGB", "")),
            gpus=_parse_int(capabilities.get("GPUs", "")),
            family=resource.family or "",
            architecture=capabilities.get("CpuArchitectureType", "x64"),
            zones=_zones(resource, location, restricted_zones),
            spot=capabilities.get("LowPriorityCapable", "").lower() != "false",
            location=location,
        ),
        restricted=restricted,
        restricted_zones=frozenset(restricted_zones),
    )


def _zones(resource: "ResourceSku", location: str, restricted: set[str]) -> tuple[str, ...] | None:
    """Zones that the subscription can use; None if the list does not contain the region."""
    entries = [entry for entry in resource.location_info or [] if (entry.location or "").lower() == location.lower()]
    if not entries:
        return None
    return tuple(sorted({zone for entry in entries for zone in entry.zones or []} - restricted))


def _contains(values: Iterable[str], location: str) -> bool:
    return location.lower() in {value.lower() for value in values}


def _text(value: object) -> str:
    """Converts a value of the SDK, which has enum members for known values, to text."""
    return str(value.value) if isinstance(value, Enum) else str(value or "")


def _parse_float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _parse_int(text: str) -> int:
    return int(_parse_float(text))
