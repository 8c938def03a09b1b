"""Computes the instance to create for a claim, or why the claim is invalid. Pure functions.

The rules are those of upstream's gpu-provisioner v0.4. Requirements that upstream accepts and ignores are errors here.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from typing import Literal

from kaito.api import labels
from kaito.api.karpenter import Claim, Machine
from kaito.cloud.provider import CloudProvider, ImageFamily, InstanceOwner, InstanceSpec
from kaito.provisioner.settings import ProvisionerSettings
from kaito.provisioner.unavailable_offerings import CapacityType

MIN_DISK_GIB = 30
MAX_DISK_GIB = 2048
"""Limits of AKS for the operating system disk of a node."""

GIB = 2**30
MACHINE_TYPE_CPU, MACHINE_TYPE_GPU = "cpu", "gpu"

_SUPPORTED = frozenset(
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

GPU_PROFILES = ("MIG1g", "MIG2g", "MIG3g", "MIG4g", "MIG7g")
"""Values of `gpuInstanceProfile` of AKS."""

_EXCLUDABLE = frozenset({labels.ZONE, labels.CAPACITY_TYPE})
"""Labels that requirements with operator NotIn are supported for."""

_ZONE = re.compile(r"^(?:(?P<region>[A-Za-z0-9]+)-)?(?P<number>\d)$")


class InvalidClaim(Exception):
    """No instance can be created for the spec of the claim; the message states the field and the remedy."""


@dataclass(frozen=True, slots=True)
class Zone:
    """A zone in a requirement: `1` or `REGION-1`; the number is empty for `0`, the label of nodes without a zone."""

    number: str
    region: str = ""

    def is_in(self, location: str) -> bool:
        """Whether it can be a zone of the region; True if the region is not known."""
        return not self.region or not location or self.region == location.lower()

    def __str__(self) -> str:
        """Formats the zone as the label of a node."""
        return f"{self.region}-{self.number}" if self.region and self.number else self.number or "0"


@dataclass(frozen=True, slots=True)
class Zones:
    """The zones and regions that a claim allows."""

    allowed: tuple[Zone, ...] | None = None
    """In the listed order; None: every zone that is not excluded."""
    excluded: tuple[Zone, ...] = ()
    regions: frozenset[str] = frozenset()
    """In lower case; empty: every region."""

    @property
    def is_restricted(self) -> bool:
        """Whether the claim allows only some zones."""
        return self.allowed is not None or bool(self.excluded)

    def excludes(self, number: str, location: str) -> bool:
        """Whether the claim excludes a zone of a region."""
        return any(zone.number == number and zone.is_in(location) for zone in self.excluded)


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """The instance that a claim requires, with the alternatives that the claim allows."""

    instance_types: tuple[str, ...]
    """In the order in which they are tried."""
    instance: InstanceSpec
    """The instance with the first instance type; see `with_type`."""
    capacity_types: tuple[CapacityType, ...] = ("on-demand",)
    """In the order in which they are tried."""
    zones: Zones = Zones()

    def with_type(self, instance_type: str, *, gpus: int | None) -> InstanceSpec:
        """The instance with another instance type; `gpus` is the GPU count of that type, None if not known."""
        is_gpu = gpus > 0 if gpus is not None else instance_type.lower().startswith("standard_n")
        machine_type = {labels.MACHINE_TYPE: MACHINE_TYPE_GPU if is_gpu else MACHINE_TYPE_CPU}
        spec = self.instance
        return replace(spec, instance_type=instance_type, labels={**spec.labels, **machine_type})


def plan_for(claim: Claim, *, provider: CloudProvider, installation: str, settings: ProvisionerSettings) -> LaunchPlan:
    """Computes the plan of a claim.

    Raises:
        InvalidClaim: the name, a requirement, the storage request or the profile of the GPUs is not valid.
    """
    name_error = provider.name_error(claim.name)
    if name_error:
        raise InvalidClaim(name_error)
    instance_types = _instance_types(claim)
    _check_requirements(claim)
    zones, capacity_types = _zones(claim), _capacity_types(claim)
    instance = InstanceSpec(
        name=claim.name,
        instance_type=instance_types[0],
        owner=owner_for(claim, installation),
        disk_gib=_disk_gib(claim, settings),
        image_family=image_family(claim.annotations.get(labels.NODE_IMAGE_FAMILY, ""))[0],
        gpu_profile=_gpu_profile(claim),
        labels=_node_labels(claim),
        taints=tuple(str(taint) if taint.value else f"{taint.key}=:{taint.effect}" for taint in claim.spec.taints),
        tags=_tags(claim),
        zones=tuple(zone.number for zone in zones.allowed or () if zone.number),
        spot=capacity_types[0] == "spot",
    )
    return LaunchPlan(instance_types, instance, capacity_types, zones)


def owner_for(claim: Claim, installation: str) -> InstanceOwner:
    """The owner that is stored in the tags of the claim's instance."""
    return InstanceOwner(claim_uid=claim.uid, claim_kind=claim.kind, claim_name=claim.name, installation=installation)


def image_family(text: str) -> tuple[ImageFamily, bool]:
    """Parses the annotation, ignoring case; returns Ubuntu and False for an unknown value."""
    families: Mapping[str, ImageFamily] = {"": "ubuntu", "ubuntu": "ubuntu", "azurelinux": "azurelinux"}
    found = families.get(text.strip().lower())
    return (found, True) if found else ("ubuntu", False)


def _gpu_profile(claim: Claim) -> str:
    """Returns the profile by which the GPUs are divided; empty for whole GPUs."""
    given = claim.annotations.get(labels.GPU_INSTANCE_PROFILE, "")
    if given and given not in GPU_PROFILES:
        # Whole GPUs instead would be paid for, and the node would never have the resources of the claim.
        raise InvalidClaim(
            f"annotation {labels.GPU_INSTANCE_PROFILE} is {given!r}: use one of {', '.join(GPU_PROFILES)}, or remove it"
        )
    return given


def _instance_types(claim: Claim) -> tuple[str, ...]:
    listed = claim.spec.values(labels.INSTANCE_TYPE)
    if not listed:
        raise InvalidClaim(
            f"the claim has no requirement {labels.INSTANCE_TYPE} with operator In and a value: name an instance type"
        )
    return tuple(dict.fromkeys(listed))


def _check_requirements(claim: Claim) -> None:
    for requirement in claim.spec.requirements:
        operators = ("In", "NotIn") if requirement.key in _EXCLUDABLE else ("In",)
        if requirement.key in _SUPPORTED and requirement.operator not in (*operators, "Exists"):
            raise InvalidClaim(
                f"requirement {requirement.key} with operator {requirement.operator} is not supported: use "
                f"{' or '.join(operators)}"
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
    """Spot before on-demand if the claim allows both; on-demand if it requires neither."""
    required, excluded = claim.spec.values(labels.CAPACITY_TYPE), _excluded(claim, labels.CAPACITY_TYPE)
    possible: tuple[CapacityType, ...] = ("spot", "on-demand")
    if not _has_in(claim, labels.CAPACITY_TYPE):
        possible = ("on-demand",) if "on-demand" not in excluded else ("spot",)
        required = possible
    found: tuple[CapacityType, ...] = tuple(kind for kind in possible if kind in required and kind not in excluded)
    if not found:
        raise InvalidClaim(
            f"requirement {labels.CAPACITY_TYPE} In {list(required)}, NotIn {sorted(excluded)} cannot be met: "
            "supported values are spot, on-demand"
        )
    return found


def _zones(claim: Claim) -> Zones:
    required = claim.spec.values(labels.ZONE)
    excluded = tuple(_zone(text) for text in sorted(_excluded(claim, labels.ZONE)))
    allowed = tuple(_zone(text) for text in required) if _has_in(claim, labels.ZONE) else None
    remaining = [zone for zone in allowed or () if zone not in excluded]
    if allowed is not None and not remaining:
        exclusions = [str(zone) for zone in excluded]
        raise InvalidClaim(f"the requirements on {labels.ZONE} leave no zone: In {list(required)}, NotIn {exclusions}")
    regions = claim.spec.values(labels.REGION)
    if _has_in(claim, labels.REGION) and not regions:
        raise InvalidClaim(f"the requirements on {labels.REGION} leave no region")
    return Zones(tuple(remaining) if allowed is not None else None, excluded, frozenset(r.lower() for r in regions))


def _zone(text: str) -> Zone:
    found = _ZONE.match(text)
    if found is None:
        raise InvalidClaim(f"requirement {labels.ZONE}: {text!r} is not a zone: use a number such as 1, or REGION-1")
    return Zone("" if found["number"] == "0" else found["number"], (found["region"] or "").lower())


def _check_fixed(claim: Claim, key: str, *supported: str) -> None:
    required = claim.spec.values(key)
    if required and not set(required) & set(supported):
        raise InvalidClaim(
            f"requirement {key} In {list(required)} cannot be met: supported values are {', '.join(supported)}"
        )


def _disk_gib(claim: Claim, settings: ProvisionerSettings) -> int:
    request = claim.spec.resources.requests.get("storage")
    if request is None and settings.default_disk_gib:
        return settings.default_disk_gib
    if request is None or request.value <= 0:
        raise InvalidClaim(f"the storage request of claim {claim.name} must be more than 0: it sets the disk size")
    gib = math.ceil(request.value / GIB)
    if not MIN_DISK_GIB <= gib <= MAX_DISK_GIB:
        raise InvalidClaim(
            f"the storage request {request} is a disk of {gib} GiB: use {MIN_DISK_GIB} to {MAX_DISK_GIB} GiB"
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
