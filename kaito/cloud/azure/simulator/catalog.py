"""The instance types (VM sizes) of the simulator, and their SKUs in the list of `Microsoft.Compute/skus`.

vCPUs, memory in GiB and GPUs are the published ones; zones are those of a typical region. Tests add or restrict sizes
by `Catalog`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

RestrictionReason = Literal["NotAvailableForSubscription", "QuotaId"]


@dataclass(frozen=True, slots=True)
class VirtualMachineSize:
    """A VM size, its quota family, and its resources."""

    name: str
    family: str
    vcpus: int
    memory_gib: float
    gpus: int = 0
    zones: tuple[str, ...] = ()
    architecture: Literal["x64", "Arm64"] = "x64"
    restricted: RestrictionReason | None = None
    """Reason why the subscription cannot use the size in the region."""
    spot: bool = True
    """Whether it is offered as spot capacity."""
    mig: tuple[str, ...] = ()
    """Names of the MIG profiles of its GPUs, in the order of `MIG_SLICES`; empty if they cannot be divided."""


MIG_SLICES = {"MIG1g": 7, "MIG2g": 3, "MIG3g": 2, "MIG4g": 1, "MIG7g": 1}
"""Slices of each GPU by `gpuInstanceProfile`."""

_40 = ("1g.5gb", "2g.10gb", "3g.20gb", "4g.20gb", "7g.40gb")
_80 = ("1g.10gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb")
_94 = ("1g.12gb", "2g.24gb", "3g.47gb", "4g.47gb", "7g.94gb")
_141 = ("1g.18gb", "2g.35gb", "3g.71gb", "4g.71gb", "7g.141gb")


def _gpu(
    name: str, family: str, vcpus: int, memory_gib: float, gpus: int, *zones: str, mig: tuple[str, ...] = ()
) -> VirtualMachineSize:
    return VirtualMachineSize(name, family, vcpus, memory_gib, gpus, zones, mig=mig)


DEFAULT_SIZES: tuple[VirtualMachineSize, ...] = (
    _gpu("Standard_NV36ads_A10_v5", "StandardNVADSA10v5Family", 36, 440, 1, "1", "2", "3"),
    _gpu("Standard_NV72ads_A10_v5", "StandardNVADSA10v5Family", 72, 880, 2, "1", "2", "3"),
    _gpu("Standard_NC24ads_A100_v4", "StandardNCADSA100v4Family", 24, 220, 1, "3", mig=_80),
    _gpu("Standard_NC48ads_A100_v4", "StandardNCADSA100v4Family", 48, 440, 2, "3", mig=_80),
    _gpu("Standard_NC96ads_A100_v4", "StandardNCADSA100v4Family", 96, 880, 4, "3", mig=_80),
    _gpu("Standard_ND96asr_A100_v4", "StandardNDASv4_A100Family", 96, 900, 8, mig=_40),
    _gpu("Standard_ND96asr_v4", "StandardNDASv4_A100Family", 96, 900, 8, mig=_40),
    _gpu("Standard_ND96amsr_A100_v4", "StandardNDAMSv4_A100Family", 96, 1900, 8, mig=_80),
    _gpu("Standard_NC40ads_H100_v5", "StandardNCadsH100v5Family", 40, 320, 1, "1", mig=_94),
    _gpu("Standard_NC80adis_H100_v5", "StandardNCadsH100v5Family", 80, 640, 2, "1", mig=_94),
    _gpu("Standard_NCC40ads_H100_v5", "StandardNCCadsH100v5Family", 40, 320, 1),
    _gpu("Standard_ND96isr_H100_v5", "StandardNDSH100v5Family", 96, 1900, 8, mig=_80),
    _gpu("Standard_ND96isr_H200_v5", "StandardNDISRH200V5Family", 96, 1850, 8, mig=_141),
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
    """The sizes of a region; names are matched case-insensitively, as in ARM."""

    sizes: dict[str, VirtualMachineSize] = field(default_factory=dict[str, VirtualMachineSize])

    @classmethod
    def default(cls) -> "Catalog":
        """The GPU sizes that Kaito supports, and a few without GPUs."""
        return cls.of(DEFAULT_SIZES)

    @classmethod
    def of(cls, sizes: Iterable[VirtualMachineSize]) -> "Catalog":
        """A catalog with these sizes only."""
        return cls({size.name.lower(): size for size in sizes})

    def find(self, name: str) -> VirtualMachineSize | None:
        """The size with this name."""
        return self.sizes.get(name.lower())

    def add(self, size: VirtualMachineSize) -> None:
        """Adds or replaces a size."""
        self.sizes[size.name.lower()] = size

    def restrict(self, name: str, reason: RestrictionReason | None = "NotAvailableForSubscription") -> None:
        """Restricts a size for the subscription; None removes the restriction."""
        self.add(replace(self.sizes[name.lower()], restricted=reason))

    def skus(self, location: str) -> list[dict[str, Any]]:
        """All sizes as `ResourceSku` items, plus one disk: the list of Azure contains several resource types."""
        disk = {
            "resourceType": "disks",
            "name": "Premium_LRS",
            "tier": "Premium",
            "size": "P30",
            "locations": [location],
            "capabilities": [{"name": "MaxSizeGiB", "value": "1024"}],
            "restrictions": [],
        }
        return [*(_sku(size, location) for size in self.sizes.values()), disk]


def _sku(size: VirtualMachineSize, location: str) -> dict[str, Any]:
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
