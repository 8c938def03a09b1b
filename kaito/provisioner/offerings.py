"""Lists the offerings that a claim accepts, in the order in which they are tried.

Capacity types come first (spot before on-demand), then instance types as listed, then zones as listed. An offering that
the cloud does not have in the region is rejected here, before a request is sent.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kaito.api import labels
from kaito.cloud.errors import CloudError, ErrorCategory, InstanceTypeUnavailable
from kaito.cloud.provider import InstanceSpec, InstanceType
from kaito.provisioner.context import ReconcileContext
from kaito.provisioner.plan import LaunchPlan
from kaito.provisioner.unavailable_offerings import CapacityType, Offering

ALL_ZONES = ("1", "2", "3")
"""The zones of an Azure region, used if the zones of the instance type are not known."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An offering and the instance to create for it."""

    offering: Offering
    instance: InstanceSpec
    vcpus: int = 0
    """vCPUs of the instance; 0 if not known."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """The offerings that a claim accepts, and the errors of those that do not exist."""

    accepted: Sequence[Candidate]
    errors: Sequence[CloudError]


async def list_candidates(ctx: ReconcileContext, plan: LaunchPlan) -> Candidates:
    """Lists the offerings of a plan.

    Raises:
        CloudError: the instance types of the region could not be read.
    """
    instance_types = [(name, await ctx.cloud.instance_type(name)) for name in plan.instance_types]
    accepted: list[Candidate] = []
    errors: list[CloudError] = []
    for capacity in plan.capacity_types:
        for name, instance_type in instance_types:
            try:
                zones = _zones(plan, name, instance_type)
                _check_architecture(ctx, name, instance_type)
            except InstanceTypeUnavailable as error:
                if all(other.message != error.message for other in errors):
                    errors.append(error)
            else:
                accepted += [_candidate(plan, name, instance_type, zone, capacity) for zone in zones]
    return Candidates(accepted, errors)


def _candidate(
    plan: LaunchPlan, name: str, instance_type: InstanceType | None, zone: str, capacity: CapacityType
) -> Candidate:
    canonical_name = instance_type.name if instance_type else name
    instance = plan.with_type(canonical_name, gpus=instance_type.gpus if instance_type else None)
    node_labels = {**instance.labels, labels.CAPACITY_TYPE: capacity}
    zones = (zone,) if zone else ()
    return Candidate(
        Offering(canonical_name, zone, capacity),
        replace(instance, spot=capacity == "spot", zones=zones, labels=node_labels),
        vcpus=instance_type.vcpus if instance_type else 0,
    )


def _zones(plan: LaunchPlan, name: str, instance_type: InstanceType | None) -> list[str]:
    """The zones to try, each with a separate request, so that an error is known to concern that zone.

    Raises:
        InstanceTypeUnavailable: the instance type exists in none of the zones that the claim allows.
    """
    location, offered = (instance_type.location, instance_type.zones) if instance_type else ("", None)
    zones = plan.zones
    if zones.regions and location and location.lower() not in zones.regions:
        raise _zone_error(f"the claim requires region {', '.join(sorted(zones.regions))}; the cluster is in {location}")
    if not zones.is_restricted:
        return [""]
    if zones.allowed is None:
        possible = list(ALL_ZONES if offered is None else offered)
        remaining = [zone for zone in possible if not zones.excludes(zone, location)]
        if remaining or not possible:
            return remaining or [""]  # an instance type without zones is in none of the excluded ones
        raise _zone_error(f"the VM size {name} is offered only in zones that the claim excludes: {', '.join(possible)}")
    in_region = [zone for zone in zones.allowed if zone.is_in(location) and not zones.excludes(zone.number, location)]
    found = [zone.number for zone in in_region if not zone.number or offered is None or zone.number in offered]
    if found:
        return list(dict.fromkeys(found))
    required = ", ".join(str(zone) for zone in zones.allowed)
    available = f"in zone {', '.join(offered)}" if offered else "without a zone"
    raise _zone_error(
        f"the VM size {name} is offered {available} of {location}, not in zone {required} that the claim requires"
    )


def _zone_error(message: str) -> InstanceTypeUnavailable:
    return InstanceTypeUnavailable(message, code="AvailabilityZoneNotSupported", category=ErrorCategory.ZONE)


def _check_architecture(ctx: ReconcileContext, name: str, instance_type: InstanceType | None) -> None:
    if instance_type is None:
        return
    required = ctx.claim.spec.values(labels.ARCH)
    offered = "arm64" if instance_type.architecture.lower() == "arm64" else "amd64"
    if required and offered not in required:
        raise InstanceTypeUnavailable(f"{name} is {offered}, the claim requires {labels.ARCH} In {list(required)}")
