"""Converts `InstanceSpec` to the body of an agent pool, and agent pools to `Instance`. Pure functions.

The owner is stored in tags of the pool. Labels would also be set on its nodes, where a workload with the permissions of
the kubelet could change them.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

from azure.mgmt.containerservice.models import (
    AgentPool,
    AgentPoolManagedClusterAgentPoolProfileProperties as Properties,
)

from kaito.cloud.azure.errors import operation_error
from kaito.cloud.errors import CloudError
from kaito.cloud.provider import Instance, InstanceOwner, InstanceSpec, InstanceState

NAME = re.compile(r"^[a-z][a-z0-9]{0,11}$")
"""Names that AKS accepts for Linux pools."""

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
"""`provisioningState` of the AKS REST reference, in lower case; an unknown state counts as updating."""


def name_error(name: str) -> str | None:
    """Why AKS rejects the name; None if it is valid."""
    if NAME.fullmatch(name):
        return None
    return f"agent pool name {name!r} must match {NAME.pattern}: 1 to 12 lower-case letters and digits, a letter first"


def pool_of(provider_id: str) -> str | None:
    """The pool of a node, from the name of its scale set, `aks-<pool>-<digits>-vmss`."""
    found = _PROVIDER_ID.match(provider_id)
    return found["pool"].lower() if found else None


def to_model(spec: InstanceSpec, *, subnet: str = "") -> AgentPool:
    """The body of the PUT that creates the pool."""
    tags = {
        **spec.tags,
        TAG_CLAIM_UID: spec.owner.claim_uid,
        TAG_CLAIM_KIND: spec.owner.claim_kind,
        TAG_CLAIM_NAME: spec.owner.claim_name,
        TAG_INSTALLATION: spec.owner.installation,
    }
    if spec.created is not None:
        tags[TAG_CREATED] = spec.created.astimezone(UTC).isoformat()
    return AgentPool(
        properties=Properties(
            count=1,
            vm_size=spec.instance_type,
            os_type="Linux",
            os_sku="AzureLinux" if spec.image_family == "azurelinux" else "Ubuntu",
            type_properties_type="VirtualMachineScaleSets",
            mode="User",
            os_disk_size_gb=spec.disk_gib,
            gpu_instance_profile=spec.gpu_profile or None,
            node_labels=dict(spec.labels),
            node_taints=list(spec.taints),
            tags=tags,
            availability_zones=list(spec.zones) or None,
            vnet_subnet_id=subnet or None,
            scale_set_priority="Spot" if spec.spot else None,
            scale_set_eviction_policy="Delete" if spec.spot else None,
            spot_max_price=-1.0 if spec.spot else None,
        )
    )


def creating(spec: InstanceSpec) -> Instance:
    """The pool immediately after its creation was accepted."""
    return Instance(
        name=spec.name,
        state="creating",
        instance_type=spec.instance_type,
        owner=spec.owner,
        labels=spec.labels,
        created=spec.created,
        spot=spec.spot,
        zones=spec.zones,
    )


def to_instance(pool: Mapping[str, Any]) -> Instance:
    """Converts the JSON of a pool. The SDK's models are not used: they need more CPU than the rest of a list.

    A field that does not have the documented type counts as absent.
    """
    properties = _object(pool.get("properties"))
    tags = _texts(properties.get("tags"))
    state = _STATES.get(_text(properties.get("provisioningState")).lower(), "updating")
    count = properties.get("count")
    return Instance(
        name=_text(pool.get("name")),
        state=state,
        instance_type=_text(properties.get("vmSize")),
        owner=_owner(tags),
        count=count if isinstance(count, int) else 1,
        image=_text(properties.get("nodeImageVersion")),
        labels=_texts(properties.get("nodeLabels")),
        created=_parse_time(tags.get(TAG_CREATED, "")),
        error=_error(properties) if state in {"failed", "canceled"} else None,
        spot=_text(properties.get("scaleSetPriority")).lower() == "spot",
        zones=_names(properties.get("availabilityZones")),
        subnet=_text(properties.get("vnetSubnetID")),
        is_system=_text(properties.get("mode")).lower() == "system",
    )


def _owner(tags: Mapping[str, str]) -> InstanceOwner | None:
    uid = tags.get(TAG_CLAIM_UID)
    if not uid:
        return None
    return InstanceOwner(
        claim_uid=uid,
        claim_kind=tags.get(TAG_CLAIM_KIND, ""),
        claim_name=tags.get(TAG_CLAIM_NAME, ""),
        installation=tags.get(TAG_INSTALLATION, ""),
    )


def _error(properties: Mapping[str, Any]) -> CloudError | None:
    provisioning_error = _object(_object(properties.get("status")).get("provisioningError"))
    return operation_error(provisioning_error) if provisioning_error else None


def _object(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _texts(value: object) -> dict[str, str]:
    return {key: text for key, text in _object(value).items() if isinstance(text, str)}


def _names(value: object) -> tuple[str, ...]:
    return (
        tuple(name for name in cast("list[object]", value) if isinstance(name, str)) if isinstance(value, list) else ()
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _parse_time(text: str) -> datetime | None:
    """Returns None if the text is not a timestamp with a time zone; users can edit tags."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None
