"""The core group without pods: nodes, Services, volumes and claims, namespaces."""

from kaito.runtime.kinds.pod import NodeSelector, PersistentVolumeClaimSpec
from kaito.runtime.kinds.references import LocalObjectReference, ObjectReference
from kaito.runtime.meta import IntOrString, Model, Quantity, Resource, Time


class NamespaceSpec(Model):
    """Finalizers of the namespace itself."""

    finalizers: list[str] = []


class NamespaceStatus(Model):
    """`Active` or `Terminating`."""

    phase: str = ""


class Namespace(Resource, api="v1", kind="Namespace", namespaced=False):
    """A scope for names."""

    spec: NamespaceSpec = NamespaceSpec()
    status: NamespaceStatus = NamespaceStatus()


class Taint(Model):
    """Taint of a node, which repels pods that do not tolerate it."""

    key: str
    effect: str
    value: str | None = None
    time_added: Time | None = None


class NodeSpec(Model):
    """Provider ID, taints and schedulability of a node."""

    provider_id: str | None = None
    unschedulable: bool = False
    taints: list[Taint] = []
    pod_cidr: str | None = None


class NodeCondition(Model):
    """Condition of a node: `Ready`, `MemoryPressure`, `DiskPressure`."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_heartbeat_time: Time | None = None
    last_transition_time: Time | None = None


class NodeAddress(Model):
    """Address of a node, with its type: `InternalIP`, `Hostname`."""

    type: str
    address: str


class NodeSystemInfo(Model):
    """Versions of the software on a node."""

    machine_id: str = ""
    system_uuid: str = ""
    boot_id: str = ""
    kernel_version: str = ""
    os_image: str = ""
    operating_system: str = ""
    architecture: str = ""
    container_runtime_version: str = ""
    kubelet_version: str = ""
    kube_proxy_version: str = ""


class NodeStatus(Model):
    """Capacity and conditions that the kubelet reports."""

    capacity: dict[str, Quantity] = {}
    allocatable: dict[str, Quantity] = {}
    conditions: list[NodeCondition] = []
    addresses: list[NodeAddress] = []
    node_info: NodeSystemInfo = NodeSystemInfo()
    phase: str | None = None


class Node(Resource, api="v1", kind="Node", namespaced=False):
    """A machine that runs pods."""

    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()

    def condition(self, condition_type: str) -> NodeCondition | None:
        """Return the condition of the type, if present."""
        return next((condition for condition in self.status.conditions if condition.type == condition_type), None)

    @property
    def is_ready(self) -> bool:
        """Whether the kubelet reports Ready and the node is not being deleted."""
        ready = self.condition("Ready")
        return ready is not None and ready.status == "True" and not self.deleting


class ServicePort(Model):
    """One port of a service."""

    port: int
    name: str | None = None
    protocol: str | None = None
    target_port: IntOrString | None = None
    node_port: int | None = None
    app_protocol: str | None = None


class ServiceSpec(Model):
    """Selected pods, ports and type of a Service."""

    type: str | None = None
    cluster_ip: str | None = None
    cluster_ips: list[str] = []
    selector: dict[str, str] = {}
    ports: list[ServicePort] = []
    external_name: str | None = None
    session_affinity: str | None = None
    publish_not_ready_addresses: bool | None = None
    internal_traffic_policy: str | None = None
    ip_families: list[str] = []
    ip_family_policy: str | None = None


class LoadBalancerIngress(Model):
    """External address of a load balancer."""

    ip: str | None = None
    hostname: str | None = None


class LoadBalancerStatus(Model):
    """External addresses of a load balancer."""

    ingress: list[LoadBalancerIngress] = []


class ServiceStatus(Model):
    """Observed state of a Service."""

    load_balancer: LoadBalancerStatus = LoadBalancerStatus()


class Service(Resource, api="v1", kind="Service"):
    """A stable name and address for pods."""

    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()


class ServiceAccount(Resource, api="v1", kind="ServiceAccount"):
    """Identity of pods at the API server."""

    secrets: list[ObjectReference] = []
    image_pull_secrets: list[LocalObjectReference] = []
    automount_service_account_token: bool | None = None


class PersistentVolumeClaimStatus(Model):
    """Phase and capacity of a claim."""

    phase: str = ""
    access_modes: list[str] = []
    capacity: dict[str, Quantity] = {}


class PersistentVolumeClaim(Resource, api="v1", kind="PersistentVolumeClaim"):
    """A request for storage."""

    spec: PersistentVolumeClaimSpec = PersistentVolumeClaimSpec()
    status: PersistentVolumeClaimStatus = PersistentVolumeClaimStatus()


class VolumeNodeAffinity(Model):
    """Nodes that can access a volume."""

    required: NodeSelector | None = None


class PersistentVolumeSpec(Model):
    """Capacity, access modes and class of a volume."""

    capacity: dict[str, Quantity] = {}
    access_modes: list[str] = []
    claim_ref: ObjectReference | None = None
    persistent_volume_reclaim_policy: str | None = None
    storage_class_name: str | None = None
    volume_mode: str | None = None
    node_affinity: VolumeNodeAffinity | None = None


class PersistentVolumeStatus(Model):
    """Phase of a volume."""

    phase: str = ""
    reason: str = ""
    message: str = ""


class PersistentVolume(Resource, api="v1", kind="PersistentVolume", namespaced=False):
    """Storage volume of the cluster."""

    spec: PersistentVolumeSpec = PersistentVolumeSpec()
    status: PersistentVolumeStatus = PersistentVolumeStatus()
