"""The virtual machine sizes the simulator sells, and their form in the `Microsoft.Compute/skus` listing.

Figures are the published ones of each size (vCPUs, memory in GiB, GPUs); zones are those of a typical region. A test
adds or restricts sizes through `Catalog`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

RestrictionReason = Literal["NotAvailableForSubscription", "QuotaId"]


@dataclass(frozen=True, slots=True)
class VirtualMachineSize:
    """One size: what it is called, which quota family it draws from, and what it holds."""

    name: str
    family: str
    vcpus: int
    memory_gib: float
    gpus: int = 0
    zones: tuple[str, ...] = ()
    architecture: Literal["x64", "Arm64"] = "x64"
    restricted: RestrictionReason | None = None
    """Set: the subscription may not use the size in this location."""
    spot: bool = True
    """Whether it is sold as spot capacity."""


def _gpu(name: str, family: str, vcpus: int, memory_gib: float, gpus: int, *zones: str) -> VirtualMachineSize:
    return VirtualMachineSize(name, family, vcpus, memory_gib, gpus, zones)


DEFAULT_SIZES: tuple[VirtualMachineSize, ...] = (
    _gpu("Standard_NV36ads_A10_v5", "StandardNVADSA10v5Family", 36, 440, 1, "1", "2", "3"),
    _gpu("Standard_NV72ads_A10_v5", "StandardNVADSA10v5Family", 72, 880, 2, "1", "2", "3"),
    _gpu("Standard_NC24ads_A100_v4", "StandardNCADSA100v4Family", 24, 220, 1, "3"),
    _gpu("Standard_NC48ads_A100_v4", "StandardNCADSA100v4Family", 48, 440, 2, "3"),
    _gpu("Standard_NC96ads_A100_v4", "StandardNCADSA100v4Family", 96, 880, 4, "3"),
    _gpu("Standard_ND96asr_A100_v4", "StandardNDASv4_A100Family", 96, 900, 8),
    _gpu("Standard_ND96asr_v4", "StandardNDASv4_A100Family", 96, 900, 8),
    _gpu("Standard_ND96amsr_A100_v4", "StandardNDAMSv4_A100Family", 96, 1900, 8),
    _gpu("Standard_NC40ads_H100_v5", "StandardNCadsH100v5Family", 40, 320, 1, "1"),
    _gpu("Standard_NC80adis_H100_v5", "StandardNCadsH100v5Family", 80, 640, 2, "1"),
    _gpu("Standard_NCC40ads_H100_v5", "StandardNCCadsH100v5Family", 40, 320, 1),
    _gpu("Standard_ND96isr_H100_v5", "StandardNDSH100v5Family", 96, 1900, 8),
    _gpu("Standard_ND96isr_H200_v5", "StandardNDISRH200V5Family", 96, 1850, 8),
    _gpu("Standard_NC6s_v3", "StandardNCSv3Family", 6, 112, 1, "1", "2", "3"),
    _gpu("Standard_NC12s_v3", "StandardNCSv3Family", 12, 224, 2, "1", "2", "3"),
    _gpu("Standard_NC24s_v3", "StandardNCSv3Family", 24, 448, 4, "1", "2", "3"),
    _gpu("Standard_NC24rs_v3", "StandardNCSv3Family", 24, 448, 4),
    _gpu("Standard_NC4as_T4_v3", "StandardNCASv3_T4Family", 4, 28, 1, "1", "2", "3"),
    _gpu("Standard_NC8as_T4_v3", "StandardNCASv3_T4Family", 8, 56, 1, "1", "2", "3"),
    _gpu("Standard_NC16as_T4_v3", "StandardNCASv3_T4Family", 16, 110, 1, "1", "2", "3"),
    _gpu("Standard_NC64as_T4_v3", "StandardNCASv3_T4Family", 64, 440, 4, "1", "2", "3"),
    VirtualMachineSize("Standard_D2s_v5", "standardDSv5Family", 2, 8, 0, ("1", "2", "3")),
    VirtualMachineSize("Standard_D4s_v5", "standardDSv5Family", 4, 16, 0, ("1", "2", "3")),
    VirtualMachineSize("Standard_D8s_v5", "standardDSv5Family", 8, 32, 0, ("1", "2", "3")),
    VirtualMachineSize("Standard_D16ps_v5", "standardDPSv5Family", 16, 64, 0, ("1", "2", "3"), "Arm64"),
)


@dataclass(slots=True)
class Catalog:
    """The sizes on sale in one location; names are matched without regard to case, as ARM does."""

    sizes: dict[str, VirtualMachineSize] = field(default_factory=dict[str, VirtualMachineSize])

    @classmethod
    def default(cls) -> "Catalog":
        """The GPU sizes Kaito knows and a few plain ones."""
        return cls.of(DEFAULT_SIZES)

    @classmethod
    def of(cls, sizes: Iterable[VirtualMachineSize]) -> "Catalog":
        """A catalog of exactly these sizes."""
        return cls({size.name.lower(): size for size in sizes})

    def find(self, name: str) -> VirtualMachineSize | None:
        """The size of that name."""
        return self.sizes.get(name.lower())

    def add(self, size: VirtualMachineSize) -> None:
        """Put a size on sale, or replace it."""
        self.sizes[size.name.lower()] = size

    def restrict(self, name: str, reason: RestrictionReason | None = "NotAvailableForSubscription") -> None:
        """Forbid a size to the subscription, or allow it again with `None`."""
        self.add(replace(self.sizes[name.lower()], restricted=reason))

    def listing(self, location: str) -> list[dict[str, Any]]:
        """Every size as `ResourceSku` items, plus one disk: the real listing mixes resource types."""
        disk = {
            "resourceType": "disks",
            "name": "Premium_LRS",
            "tier": "Premium",
            "size": "P30",
            "locations": [location],
            "capabilities": [{"name": "MaxSizeGiB", "value": "1024"}],
            "restrictions": [],
        }
        return [*(_item(size, location) for size in self.sizes.values()), disk]


def _item(size: VirtualMachineSize, location: str) -> dict[str, Any]:
    capabilities = {
        "vCPUs": str(size.vcpus),
        "MemoryGB": f"{size.memory_gib:g}",
        "CpuArchitectureType": size.architecture,
        "HyperVGenerations": "V1,V2",
        "LowPriorityCapable": str(size.spot),
        "PremiumIO": "True",
        "EphemeralOSDiskSupported": "True",
    } | ({"GPUs": str(size.gpus)} if size.gpus else {})
    restriction = {
        "type": "Location",
        "values": [location],
        "restrictionInfo": {"locations": [location]},
        "reasonCode": size.restricted,
    }
    return {
        "resourceType": "virtualMachines",
        "name": size.name,
        "tier": "Standard",
        "size": size.name.removeprefix("Standard_"),
        "family": size.family,
        "locations": [location],
        "locationInfo": [{"location": location, "zones": list(size.zones), "zoneDetails": []}],
        "capabilities": [{"name": name, "value": value} for name, value in capabilities.items()],
        "restrictions": [restriction] if size.restricted else [],
    }
