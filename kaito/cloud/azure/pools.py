"""Agent pools as the SDK models them, to and from `Instance`: pure functions.

The marker (whose pool it is) travels in the pool's tags; labels would end up on the node, where a workload with the
kubelet's rights could change them.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from azure.mgmt.containerservice.models import (
    AgentPool,
    AgentPoolManagedClusterAgentPoolProfileProperties as Properties,
)

from kaito.cloud.azure.errors import operation_error
from kaito.cloud.errors import CloudError
from kaito.cloud.provider import Instance, InstancePlan, InstanceState, Marker

NAME = re.compile(r"^[a-z][a-z0-9]{0,11}$")
"""Names AKS accepts for Linux pools."""

TAG_CLAIM_UID = "kaito-claim-uid"
TAG_CLAIM_KIND = "kaito-claim-kind"
TAG_CLAIM_NAME = "kaito-claim-name"
TAG_INSTALLATION = "kaito-installation"
TAG_CREATED = "kaito-created"

_PROVIDER_ID = re.compile(
    r"^azure:///subscriptions/[^/]+/resourcegroups/[^/]+/providers/microsoft\.compute"
    r"/virtualmachinescalesets/aks-(?P<pool>[a-z0-9]+)-\d+-vmss/virtualmachines/\d+$",
    re.IGNORECASE,
)

_STATES: Mapping[str, InstanceState] = {
    "creating": "creating",
    "updating": "updating",
    "scaling": "updating",
    "upgrading": "updating",
    "starting": "updating",
    "stopping": "updating",
    "deleting": "deleting",
    "succeeded": "ready",
    "failed": "failed",
    "canceled": "canceled",
}
"""`provisioningState` (AKS REST reference), matched without regard to case; an unknown one is still under way."""


def name_problem(name: str) -> str | None:
    """Why AKS would refuse the name."""
    if NAME.match(name):
        return None
    return f"agent pool name {name!r} must match {NAME.pattern}: 1 to 12 lower-case letters and digits, a letter first"


def pool_of(provider_id: str) -> str | None:
    """The pool of a machine, from its scale set's name `aks-<pool>-<digits>-vmss`."""
    found = _PROVIDER_ID.match(provider_id)
    return found["pool"].lower() if found else None


def system_subnet(pools: Iterable[AgentPool]) -> str:
    """The subnet of the first system pool that names one, else empty."""
    found = (pool.properties.vnet_subnet_id for pool in pools if pool.properties and pool.properties.mode == "System")
    return next((subnet for subnet in found if subnet), "")


def to_model(plan: InstancePlan, *, subnet: str = "") -> AgentPool:
    """The body of the PUT."""
    tags = {
        **plan.tags,
        TAG_CLAIM_UID: plan.marker.claim_uid,
        TAG_CLAIM_KIND: plan.marker.claim_kind,
        TAG_CLAIM_NAME: plan.marker.claim_name,
        TAG_INSTALLATION: plan.marker.installation,
    }
    if plan.created is not None:
        tags[TAG_CREATED] = plan.created.astimezone(UTC).isoformat()
    return AgentPool(
        properties=Properties(
            count=1,
            vm_size=plan.instance_type,
            os_type="Linux",
            os_sku="AzureLinux" if plan.image_family == "azurelinux" else "Ubuntu",
            type_properties_type="VirtualMachineScaleSets",
            mode="User",
            os_disk_size_gb=plan.disk_gib,
            node_labels=dict(plan.labels),
            node_taints=list(plan.taints),
            tags=tags,
            availability_zones=list(plan.zones) or None,
            vnet_subnet_id=subnet or None,
            scale_set_priority="Spot" if plan.spot else None,
            scale_set_eviction_policy="Delete" if plan.spot else None,
            spot_max_price=-1.0 if plan.spot else None,
        )
    )


def to_instance(pool: AgentPool) -> Instance:
    """What the service says about a pool."""
    properties = pool.properties or Properties()
    tags = properties.tags or {}
    state = _STATES.get(str(properties.provisioning_state or "").lower(), "updating")
    return Instance(
        name=pool.name or "",
        state=state,
        instance_type=properties.vm_size or "",
        marker=_marker(tags),
        count=properties.count if properties.count is not None else 1,
        image=properties.node_image_version or "",
        labels=properties.node_labels or {},
        created=_moment(tags.get(TAG_CREATED, "")),
        error=_error(properties) if state in {"failed", "canceled"} else None,
        spot=_is_spot(properties),
        zones=tuple(properties.availability_zones or ()),
    )


def _marker(tags: Mapping[str, str]) -> Marker | None:
    uid = tags.get(TAG_CLAIM_UID)
    if not uid:
        return None
    return Marker(
        claim_uid=uid,
        claim_kind=tags.get(TAG_CLAIM_KIND, ""),
        claim_name=tags.get(TAG_CLAIM_NAME, ""),
        installation=tags.get(TAG_INSTALLATION, ""),
    )


def _is_spot(properties: Properties) -> bool:
    """The SDK gives a member of a string enum for a word it knows, and the word itself otherwise."""
    priority = properties.scale_set_priority
    return str(getattr(priority, "value", priority) or "").lower() == "spot"


def _error(properties: Properties) -> CloudError | None:
    provisioning_error = properties.status.provisioning_error if properties.status else None
    return operation_error(provisioning_error.as_dict()) if provisioning_error is not None else None


def _moment(text: str) -> datetime | None:
    """A time somebody may have edited: garbage is no time."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None
