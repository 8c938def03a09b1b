"""Ingresses and network policies."""

from typing import TYPE_CHECKING

from pydantic import Field

from kaito.runtime.kinds.core import LoadBalancerStatus
from kaito.runtime.meta import IntOrString, LabelSelector, Model, Resource

if TYPE_CHECKING:
    from kaito.runtime.kinds.structs import TypedLocalObjectReference
else:
    from kaito.runtime.kinds.deferred import TypedLocalObjectReference

GROUP = "networking.k8s.io"


class ServiceBackendPort(Model):
    """A port of a Service, by name or number."""

    name: str | None = None
    number: int | None = None


class IngressServiceBackend(Model):
    """A port of a Service."""

    name: str = ""
    port: ServiceBackendPort = Field(default_factory=ServiceBackendPort)


class IngressBackend(Model):
    """Backend of requests."""

    service: IngressServiceBackend | None = None
    resource: TypedLocalObjectReference | None = None


class HttpIngressPath(Model):
    """Path and its backend."""

    path: str | None = None
    path_type: str | None = None
    """`Exact`, `Prefix` or `ImplementationSpecific`, or a value of a newer API server."""
    backend: IngressBackend = Field(default_factory=IngressBackend)


class HttpIngressRuleValue(Model):
    """The paths of a host."""

    paths: list[HttpIngressPath] = []


class IngressRule(Model):
    """A host and its paths."""

    host: str | None = None
    http: HttpIngressRuleValue | None = None


class IngressTls(Model):
    """Hosts and the Secret of their certificate."""

    hosts: list[str] = []
    secret_name: str | None = None


class IngressSpec(Model):
    """Rules of an Ingress."""

    ingress_class_name: str | None = None
    default_backend: IngressBackend | None = None
    rules: list[IngressRule] = []
    tls: list[IngressTls] = []


class IngressStatus(Model):
    """Addresses of an Ingress."""

    load_balancer: LoadBalancerStatus = Field(default_factory=LoadBalancerStatus)


class Ingress(Resource, api=f"{GROUP}/v1", kind="Ingress", plural="ingresses"):
    """HTTP access from outside the cluster."""

    spec: IngressSpec = Field(default_factory=IngressSpec)
    status: IngressStatus = Field(default_factory=IngressStatus)


class IpBlock(Model):
    """Range of addresses with exceptions."""

    cidr: str = ""
    except_: list[str] = []


class NetworkPolicyPeer(Model):
    """Source or destination of a connection."""

    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    ip_block: IpBlock | None = None


class NetworkPolicyPort(Model):
    """Port or range of ports."""

    protocol: str | None = None
    """`TCP`, `UDP` or `SCTP`, or a value of a newer API server."""
    port: IntOrString | None = None
    end_port: int | None = None


class NetworkPolicyIngressRule(Model):
    """Allowed sources and ports of incoming connections."""

    from_: list[NetworkPolicyPeer] = []
    ports: list[NetworkPolicyPort] = []


class NetworkPolicyEgressRule(Model):
    """Allowed destinations and ports of outgoing connections."""

    to: list[NetworkPolicyPeer] = []
    ports: list[NetworkPolicyPort] = []


class NetworkPolicySpec(Model):
    """Selected pods and their allowed connections. An empty list allows none, an omitted one all."""

    pod_selector: LabelSelector = Field(default_factory=LabelSelector)
    policy_types: list[str] = []
    """`Ingress` or `Egress`, or a value of a newer API server."""
    ingress: list[NetworkPolicyIngressRule] = []
    egress: list[NetworkPolicyEgressRule] = []


class NetworkPolicy(Resource, api=f"{GROUP}/v1", kind="NetworkPolicy", plural="networkpolicies"):
    """Allowed connections of pods."""

    spec: NetworkPolicySpec = Field(default_factory=NetworkPolicySpec)
