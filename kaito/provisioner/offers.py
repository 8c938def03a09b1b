"""Which offers a claim accepts: sizes, zones and capacity types, in the order in which they are tried.

Capacity types come first (spot before on-demand), then sizes as listed, then zones as listed. An offer that the
location's listing rules out is refused here, before anything is sent.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kaito.api import labels
from kaito.cloud.errors import CloudError, InstanceTypeUnavailable, Verdict
from kaito.cloud.provider import InstancePlan, InstanceType
from kaito.provisioner.context import Pass
from kaito.provisioner.ledger import CapacityType, Offer
from kaito.provisioner.plan import Plan

EVERY_ZONE = ("1", "2", "3")
"""The zones of an Azure region, for when the listing cannot be read."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An offer and the instance it would be."""

    offer: Offer
    instance: InstancePlan
    vcpus: int = 0
    """Of one machine; 0 when unknown."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The offers a claim accepts, and why others were ruled out."""

    candidates: Sequence[Candidate]
    refusals: Sequence[CloudError]


async def choice(run: Pass, plan: Plan) -> Choice:
    """The offers of a plan.

    Raises:
        CloudError: the location's listing could not be read.
    """
    sizes = [(name, await run.cloud.instance_type(name)) for name in plan.instance_types]
    candidates: list[Candidate] = []
    refusals: list[CloudError] = []
    for capacity in plan.capacity_types:
        for name, size in sizes:
            try:
                zones = _zones(plan, name, size)
                _check_architecture(run, name, size)
            except InstanceTypeUnavailable as refusal:
                if all(other.message != refusal.message for other in refusals):
                    refusals.append(refusal)
            else:
                candidates += [_candidate(plan, name, size, zone, capacity) for zone in zones]
    return Choice(candidates, refusals)


def _candidate(plan: Plan, name: str, size: InstanceType | None, zone: str, capacity: CapacityType) -> Candidate:
    spelled = size.name if size else name
    instance = plan.with_type(spelled, gpus=size.gpus if size else None)
    node_labels = {**instance.labels, labels.CAPACITY_TYPE: capacity}
    zones = (zone,) if zone else ()
    return Candidate(
        Offer(spelled, zone, capacity),
        replace(instance, spot=capacity == "spot", zones=zones, labels=node_labels),
        vcpus=size.vcpus if size else 0,
    )


def _zones(plan: Plan, name: str, size: InstanceType | None) -> list[str]:
    """The zones to try, each in a request of its own, so that a refusal is known to be about that zone.

    Raises:
        InstanceTypeUnavailable: the size is in none of the zones that the claim allows.
    """
    location, offered = (size.location, size.zones) if size else ("", None)
    wanted = plan.zones
    if wanted.regions and location and location.lower() not in wanted.regions:
        raise _elsewhere(f"the claim requires region {', '.join(sorted(wanted.regions))}; the cluster is in {location}")
    if not wanted.restricted:
        return [""]
    if wanted.allowed is None:
        possible = list(EVERY_ZONE if offered is None else offered)
        left = [zone for zone in possible if not wanted.excludes(zone, location)]
        if left or not possible:
            return left or [""]  # a size without zones is in none of the excluded ones
        raise _elsewhere(f"the VM size {name} is offered only in zones that the claim excludes: {', '.join(possible)}")
    here = [zone for zone in wanted.allowed if zone.is_in(location) and not wanted.excludes(zone.number, location)]
    found = [zone.number for zone in here if not zone.number or offered is None or zone.number in offered]
    if found:
        return list(dict.fromkeys(found))
    asked = ", ".join(str(zone) for zone in wanted.allowed)
    there = f"in zone {', '.join(offered)}" if offered else "without a zone"
    raise _elsewhere(
        f"the VM size {name} is offered {there} of {location}, not in zone {asked} that the claim requires"
    )


def _elsewhere(message: str) -> InstanceTypeUnavailable:
    return InstanceTypeUnavailable(message, code="AvailabilityZoneNotSupported", verdict=Verdict.ZONE)


def _check_architecture(run: Pass, name: str, size: InstanceType | None) -> None:
    if size is None:
        return
    asked = run.claim.spec.values(labels.ARCH)
    offered = "arm64" if size.architecture.lower() == "arm64" else "amd64"
    if asked and offered not in asked:
        raise InstanceTypeUnavailable(f"{name} is {offered}, the claim requires {labels.ARCH} In {list(asked)}")
