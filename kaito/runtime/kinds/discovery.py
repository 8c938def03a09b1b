"""EndpointSlices: the addresses behind Services."""

from typing import TYPE_CHECKING

from pydantic import Field

from kaito.runtime.kinds.references import ObjectReference
from kaito.runtime.meta import Model, Resource

if TYPE_CHECKING:
    from kaito.runtime.kinds.structs import EndpointHints
else:
    from kaito.runtime.kinds.deferred import EndpointHints


class EndpointConditions(Model):
    """State of an endpoint."""

    ready: bool | None = None
    """Whether it receives new connections; None counts as ready."""
    serving: bool | None = None
    terminating: bool | None = None


class Endpoint(Model):
    """A backend of a Service."""

    addresses: list[str] = []
    """IP addresses or names of this one backend; consumers use the first."""
    conditions: EndpointConditions = Field(default_factory=EndpointConditions)
    node_name: str | None = None
    deprecated_topology: dict[str, str] = {}
    hints: EndpointHints | None = None
    hostname: str | None = None
    target_ref: ObjectReference | None = None
    zone: str | None = None

    @property
    def is_ready(self) -> bool:
        """Whether it receives new connections."""
        return self.conditions.ready is not False


class EndpointPort(Model):
    """A port of all endpoints of a slice."""

    name: str = ""
    port: int | None = None
    protocol: str = ""
    app_protocol: str | None = None


class EndpointSlice(Resource, api="discovery.k8s.io/v1", kind="EndpointSlice", plural="endpointslices"):
    """Some or all backends of a Service, which the label `kubernetes.io/service-name` names."""

    address_type: str = ""
    """`IPv4`, `IPv6` or `FQDN`; immutable."""
    endpoints: list[Endpoint] = []
    ports: list[EndpointPort] = []
