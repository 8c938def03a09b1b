"""Ingresses and network policies."""

from kaito.runtime.kinds.core import LoadBalancerStatus
from kaito.runtime.meta import LabelSelector, Model, Resource
from kaito.runtime.meta.model import IntOrString

GROUP = "networking.k8s.io"


class ServiceBackendPort(Model):
    """A port of a Service, by name or number."""

    name: str | None = None
    number: int | None = None


class IngressServiceBackend(Model):
    """A port of a Service."""

    name: str = ""
    port: ServiceBackendPort = ServiceBackendPort()


class IngressBackend(Model):
    """Where requests go."""

    service: IngressServiceBackend | None = None


class HttpIngressPath(Model):
    """A path and where its requests go."""

    path: str | None = None
    path_type: str | None = None
    """`Exact`, `Prefix` or `ImplementationSpecific`, or a value of a newer API server."""
    backend: IngressBackend = IngressBackend()


class HttpIngressRuleValue(Model):
    """The paths of a host."""

    paths: list[HttpIngressPath] = []


class IngressRule(Model):
    """A host and its paths."""

    host: str | None = None
    http: HttpIngressRuleValue | None = None


class IngressTls(Model):
    """Which Secret has the certificate for which hosts."""

    hosts: list[str] = []
    secret_name: str | None = None


class IngressSpec(Model):
    """What is reachable from outside."""

    ingress_class_name: str | None = None
    default_backend: IngressBackend | None = None
    rules: list[IngressRule] = []
    tls: list[IngressTls] = []


class IngressStatus(Model):
    """Where it is reachable."""

    load_balancer: LoadBalancerStatus = LoadBalancerStatus()


class Ingress(Resource, api=f"{GROUP}/v1", kind="Ingress", plural="ingresses"):
    """HTTP from outside."""

    spec: IngressSpec = IngressSpec()
    status: IngressStatus = IngressStatus()


class IpBlock(Model):
    """Addresses, and those among them that are left out."""

    cidr: str = ""
    except_: list[str] = []


class NetworkPolicyPeer(Model):
    """One side of a connection."""

    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    ip_block: IpBlock | None = None


class NetworkPolicyPort(Model):
    """A port, or a range of them."""

    protocol: str | None = None
    """`TCP`, `UDP` or `SCTP`, or a value of a newer API server."""
    port: IntOrString | None = None
    end_port: int | None = None


class NetworkPolicyIngressRule(Model):
    """Who may connect to which ports."""

    from_: list[NetworkPolicyPeer] = []
    ports: list[NetworkPolicyPort] = []


class NetworkPolicyEgressRule(Model):
    """Where the pods may connect to."""

    to: list[NetworkPolicyPeer] = []
    ports: list[NetworkPolicyPort] = []


class NetworkPolicySpec(Model):
    """Which pods, and what is let through. An empty list lets nothing through, one left out everything."""

    pod_selector: LabelSelector = LabelSelector()
    policy_types: list[str] = []
    """`Ingress` or `Egress`, or a value of a newer API server."""
    ingress: list[NetworkPolicyIngressRule] = []
    egress: list[NetworkPolicyEgressRule] = []


class NetworkPolicy(Resource, api=f"{GROUP}/v1", kind="NetworkPolicy", plural="networkpolicies"):
    """Which connections pods may have."""

    spec: NetworkPolicySpec = NetworkPolicySpec()
