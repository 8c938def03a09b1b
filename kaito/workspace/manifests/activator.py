"""Builds the EndpointSlice that leads the Service of a Workspace without copies to the activator.

The Service has a selector, so that Kubernetes writes its other EndpointSlices. This one has another manager and is left
unchanged. Its port identifies the Workspace to the activator and stays while the Workspace exists, also while the slice
has no endpoints.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from kaito.api import Workspace, labels
from kaito.runtime.kinds import Endpoint, EndpointConditions, EndpointPort, EndpointSlice
from kaito.runtime.meta import ObjectKey, ObjectMeta, format_time
from kaito.workspace.ownership import pod_labels

MANAGER: Final = "activator.kaito.sh"
"""Value of `endpointslice.kubernetes.io/managed-by`."""

PORT_NAME: Final = "http"
"""Name of the port of the Service for clients."""

_SUFFIX: Final = "-activator"


def slice_name(workspace: str) -> str:
    """Returns the name of the EndpointSlice of a Workspace."""
    return f"{workspace}{_SUFFIX}"


def workspace_of(found: EndpointSlice) -> ObjectKey | None:
    """Returns the Workspace of an EndpointSlice; None if it is not one of the controller."""
    name = found.labels.get(labels.SERVICE_NAME)
    is_ours = found.labels.get(labels.ACTIVATOR) == labels.ACTIVATOR_WORKSPACE
    return ObjectKey(found.namespace, name) if name and is_ours and not found.deleting else None


def slice_port(found: EndpointSlice) -> int | None:
    """Returns the port of the listener; None if there is none."""
    return next((port.port for port in found.ports), None)


def port_of(found: EndpointSlice) -> tuple[ObjectKey, int] | None:
    """Returns the Workspace of an EndpointSlice and the port of its listener; None if it has none."""
    key, port = workspace_of(found), slice_port(found)
    return (key, port) if key is not None and port is not None else None


def ports_of(slices: Iterable[EndpointSlice]) -> dict[ObjectKey, int]:
    """Returns the ports of Workspaces, by Workspace."""
    return dict(each for each in map(port_of, slices) if each is not None)


def addresses_of(slices: Sequence[EndpointSlice]) -> tuple[str, list[str]]:
    """Returns the address family and the addresses of the ready pods of the activator; an empty list if none is ready.

    All are of one family, because an EndpointSlice is: IPv4 if there are any.
    """
    by_family: dict[str, set[str]] = {}
    for each in slices:
        if each.labels.get(labels.ACTIVATOR) == labels.ACTIVATOR_ADDRESS:
            ready = {endpoint.addresses[0] for endpoint in each.endpoints if endpoint.is_ready and endpoint.addresses}
            by_family.setdefault(each.address_type, set()).update(ready)
    family = "IPv4" if by_family.get("IPv4") or not by_family.get("IPv6") else "IPv6"
    return family, sorted(by_family.get(family, set()))


def activator_slice(
    workspace: Workspace, *, port: int, family: str, addresses: Sequence[str], since: datetime | None
) -> EndpointSlice:
    """Returns the EndpointSlice.

    Args:
        workspace: the Workspace.
        port: port of its listener.
        family: `IPv4` or `IPv6`; it cannot change.
        addresses: of the pods of the activator; none while the Workspace has a ready copy.
        since: since when it has endpoints; None without endpoints.
    """
    own = {
        **pod_labels(workspace),
        labels.SERVICE_NAME: workspace.name,
        labels.ENDPOINTS_MANAGED_BY: MANAGER,
        labels.ACTIVATOR: labels.ACTIVATOR_WORKSPACE,
    }
    annotations = {labels.ACTIVATOR_SINCE: format_time(since)} if since is not None else {}
    return EndpointSlice(
        metadata=ObjectMeta(
            name=slice_name(workspace.name), namespace=workspace.namespace, labels=own, annotations=annotations
        ),
        address_type=family,
        endpoints=[Endpoint(addresses=[address], conditions=EndpointConditions(ready=True)) for address in addresses],
        ports=[EndpointPort(name=PORT_NAME, port=port, protocol="TCP")],
    )
