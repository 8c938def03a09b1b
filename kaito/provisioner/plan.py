"""From a claim to what to create: pure, and it refuses what cannot be fulfilled with words for the user.

Rules are upstream gpu-provisioner's (v0.4) where it has any; what it accepted and ignored is refused here.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from typing import Literal

from kaito.api import labels
from kaito.api.karpenter import Claim, Machine
from kaito.cloud.provider import ImageFamily, InstancePlan, Marker, Provider
from kaito.provisioner.ledger import CapacityType
from kaito.provisioner.settings import ProvisionerSettings

SMALLEST_DISK_GIB = 30
LARGEST_DISK_GIB = 2048
"""Bounds of an AKS node's operating system disk."""

GIB = 2**30
MACHINE_TYPE_CPU, MACHINE_TYPE_GPU = "cpu", "gpu"

_UNDERSTOOD = frozenset(
    {
        labels.INSTANCE_TYPE,
        labels.AZURE_SKU_NAME,
        labels.OS,
        labels.ARCH,
        labels.ZONE,
        labels.CAPACITY_TYPE,
        labels.NODEPOOL,
        labels.PROVISIONER_NAME,
        labels.MACHINE_TYPE,
        labels.REGION,
    }
)

_EXCLUDABLE = frozenset({labels.ZONE, labels.CAPACITY_TYPE})
"""Requirements that may exclude values."""

_ZONE = re.compile(r"^(?:(?P<region>[A-Za-z0-9]+)-)?(?P<number>\d)$")


class Unfulfillable(Exception):
    """The claim cannot become an instance as it is; the message tells the user why."""


@dataclass(frozen=True, slots=True)
class Zone:
    """One zone of a requirement: `1`, or `REGION-1`. The number is empty for machines in no zone, AKS's `0`."""

    number: str
    region: str = ""

    def is_in(self, location: str) -> bool:
        """Whether it can be a zone of a region; a location that is not known rules nothing out."""
        return not self.region or not location or self.region == location.lower()

    def __str__(self) -> str:
        """As the node's label has it."""
        return f"{self.region}-{self.number}" if self.region and self.number else self.number or "0"


@dataclass(frozen=True, slots=True)
class Zones:
    """The zones and regions that a claim allows."""

    allowed: tuple[Zone, ...] | None = None
    """In the listed order; None: every one that is not excluded."""
    excluded: tuple[Zone, ...] = ()
    regions: frozenset[str] = frozenset()
    """In lower case; empty: every one."""

    @property
    def restricted(self) -> bool:
        """Whether the zone matters at all."""
        return self.allowed is not None or bool(self.excluded)

    def excludes(self, number: str, location: str) -> bool:
        """Whether a zone of a region is excluded."""
        return any(zone.number == number and zone.is_in(location) for zone in self.excluded)


@dataclass(frozen=True, slots=True)
class Plan:
    """The instance a claim asks for; several sizes are tried in the listed order."""

    instance_types: tuple[str, ...]
    instance: InstancePlan
    """With the first size; see `with_type`."""
    capacity_types: tuple[CapacityType, ...] = ("on-demand",)
    """In the order in which they are tried."""
    zones: Zones = Zones()

    def with_type(self, instance_type: str, *, gpus: int | None) -> InstancePlan:
        """The instance with one of the sizes; `gpus` is what the size holds, None when unknown."""
        is_gpu = gpus > 0 if gpus is not None else instance_type.lower().startswith("standard_n")
        machine_type = {labels.MACHINE_TYPE: MACHINE_TYPE_GPU if is_gpu else MACHINE_TYPE_CPU}
        plan = self.instance
        return replace(plan, instance_type=instance_type, labels={**plan.labels, **machine_type})


def plan_for(claim: Claim, *, provider: Provider, installation: str, settings: ProvisionerSettings) -> Plan:
    """What to create for a claim.

    Raises:
        Unfulfillable: the claim's name, requirements or resources are refused.
    """
    problem = provider.name_problem(claim.name)
    if problem:
        raise Unfulfillable(problem)
    instance_types = _instance_types(claim)
    _check_requirements(claim)
    zones, capacity_types = _zones(claim), _capacity_types(claim)
    instance = InstancePlan(
        name=claim.name,
        instance_type=instance_types[0],
        marker=marker_for(claim, installation),
        disk_gib=_disk_gib(claim, settings),
        image_family=image_family(claim.annotations.get(labels.NODE_IMAGE_FAMILY, ""))[0],
        labels=_node_labels(claim),
        taints=tuple(str(taint) if taint.value else f"{taint.key}=:{taint.effect}" for taint in claim.spec.taints),
        tags=_tags(claim),
        zones=tuple(zone.number for zone in zones.allowed or () if zone.number),
        spot=capacity_types[0] == "spot",
    )
    return Plan(instance_types, instance, capacity_types, zones)


def marker_for(claim: Claim, installation: str) -> Marker:
    """How the claim's instance is recognized as the claim's."""
    return Marker(claim_uid=claim.uid, claim_kind=claim.kind, claim_name=claim.name, installation=installation)


def image_family(text: str) -> tuple[ImageFamily, bool]:
    """The family an annotation names, in any case, and whether the word was understood; Ubuntu otherwise."""
    families: Mapping[str, ImageFamily] = {"": "ubuntu", "ubuntu": "ubuntu", "azurelinux": "azurelinux"}
    found = families.get(text.strip().lower())
    return (found, True) if found else ("ubuntu", False)


def _instance_types(claim: Claim) -> tuple[str, ...]:
    listed = claim.spec.values(labels.INSTANCE_TYPE)
    if not listed:
        raise Unfulfillable(
            f"the claim has no requirement {labels.INSTANCE_TYPE} with operator In and a value: name the size to create"
        )
    return tuple(dict.fromkeys(listed))


def _check_requirements(claim: Claim) -> None:
    for requirement in claim.spec.requirements:
        usable = ("In", "NotIn") if requirement.key in _EXCLUDABLE else ("In",)
        if requirement.key in _UNDERSTOOD and requirement.operator not in (*usable, "Exists"):
            raise Unfulfillable(
                f"requirement {requirement.key} with operator {requirement.operator} is not supported: use "
                f"{' or '.join(usable)}"
            )
    _check_fixed(claim, labels.OS, "linux")
    _check_fixed(claim, labels.ARCH, "amd64", "arm64")


def _excluded(claim: Claim, key: str) -> frozenset[str]:
    return frozenset(
        value for r in claim.spec.requirements if r.key == key and r.operator == "NotIn" for value in r.values
    )


def _has_in(claim: Claim, key: str) -> bool:
    return any(r.key == key and r.operator == "In" for r in claim.spec.requirements)


def _capacity_types(claim: Claim) -> tuple[CapacityType, ...]:
    """Spot before on-demand where both are allowed; on-demand where the claim requires nothing."""
    asked, excluded = claim.spec.values(labels.CAPACITY_TYPE), _excluded(claim, labels.CAPACITY_TYPE)
    possible: tuple[CapacityType, ...] = ("spot", "on-demand")
    if not _has_in(claim, labels.CAPACITY_TYPE):
        possible = ("on-demand",) if "on-demand" not in excluded else ("spot",)
        asked = possible
    found: tuple[CapacityType, ...] = tuple(kind for kind in possible if kind in asked and kind not in excluded)
    if not found:
        raise Unfulfillable(
            f"requirement {labels.CAPACITY_TYPE} In {list(asked)}, NotIn {sorted(excluded)} cannot be met: possible "
            "are spot, on-demand"
        )
    return found


def _zones(claim: Claim) -> Zones:
    asked = claim.spec.values(labels.ZONE)
    excluded = tuple(_zone(text) for text in sorted(_excluded(claim, labels.ZONE)))
    allowed = tuple(_zone(text) for text in asked) if _has_in(claim, labels.ZONE) else None
    left = [zone for zone in allowed or () if zone not in excluded]
    if allowed is not None and not left:
        raise Unfulfillable(f"the requirements on {labels.ZONE} leave no zone: In {list(asked)}, NotIn others")
    regions = claim.spec.values(labels.REGION)
    if _has_in(claim, labels.REGION) and not regions:
        raise Unfulfillable(f"the requirements on {labels.REGION} leave no region")
    return Zones(tuple(left) if allowed is not None else None, excluded, frozenset(r.lower() for r in regions))


def _zone(text: str) -> Zone:
    found = _ZONE.match(text)
    if found is None:
        raise Unfulfillable(
            f"requirement {labels.ZONE}: {text!r} is not a zone: write a number such as 1, or REGION-1 as nodes have it"
        )
    return Zone("" if found["number"] == "0" else found["number"], (found["region"] or "").lower())


def _check_fixed(claim: Claim, key: str, *possible: str) -> None:
    asked = claim.spec.values(key)
    if asked and not set(asked) & set(possible):
        raise Unfulfillable(f"requirement {key} In {list(asked)} cannot be met: possible are {', '.join(possible)}")


def _disk_gib(claim: Claim, settings: ProvisionerSettings) -> int:
    request = claim.spec.resources.requests.get("storage")
    if request is None and settings.default_disk_gib:
        return settings.default_disk_gib
    if request is None or request.value <= 0:
        raise Unfulfillable(f"the storage request of claim {claim.name} must be more than 0: it is the disk's size")
    gib = math.ceil(request.value / GIB)
    if not SMALLEST_DISK_GIB <= gib <= LARGEST_DISK_GIB:
        raise Unfulfillable(
            f"the storage request {request} is a disk of {gib} GiB: possible are {SMALLEST_DISK_GIB} to "
            f"{LARGEST_DISK_GIB} GiB"
        )
    return gib


def _node_labels(claim: Claim) -> dict[str, str]:
    pool: tuple[str, Literal["kaito", "default"]] = (
        (labels.PROVISIONER_NAME, "default") if isinstance(claim, Machine) else (labels.NODEPOOL, "kaito")
    )
    created = claim.metadata.creation_timestamp
    stamp = {labels.CREATION_TIMESTAMP: created.astimezone(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")} if created else {}
    return {
        pool[0]: pool[1],
        **claim.labels,
        **stamp,
        labels.MANAGED_BY: labels.GPU_PROVISIONER,
        labels.CLAIM_NAME: claim.name,
        labels.CLAIM_KIND: claim.kind,
        labels.CLAIM_UID: claim.uid,
    }


def _tags(claim: Claim) -> dict[str, str]:
    namespace, workspace = claim.owner
    return {"kaito-workspace": workspace, "kaito-namespace": namespace} if workspace else {}
