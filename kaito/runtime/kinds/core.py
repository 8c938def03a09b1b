"""The core group without pods: nodes, Services, volumes and claims, namespaces."""

from typing import TYPE_CHECKING

from pydantic import Field

from kaito.runtime.kinds.pod import HostPathVolumeSource, NodeSelector, PersistentVolumeClaimSpec
from kaito.runtime.kinds.references import LocalObjectReference, ObjectReference
from kaito.runtime.meta import Condition, IntOrString, Model, Quantity, Resource, Time

if TYPE_CHECKING:
    from kaito.runtime.kinds.structs import (
        AttachedVolume,
        AwsElasticBlockStoreVolumeSource,
        AzureDiskVolumeSource,
        AzureFilePersistentVolumeSource,
        CephFsPersistentVolumeSource,
        CinderPersistentVolumeSource,
        ContainerImage,
        CsiPersistentVolumeSource,
        FcVolumeSource,
        FlexPersistentVolumeSource,
        FlockerVolumeSource,
        GcePersistentDiskVolumeSource,
        GlusterfsPersistentVolumeSource,
        IscsiPersistentVolumeSource,
        LocalVolumeSource,
        ModifyVolumeStatus,
        NfsVolumeSource,
        NodeConfigSource,
        NodeConfigStatus,
        NodeDaemonEndpoints,
        NodeFeatures,
        NodeRuntimeHandler,
        NodeSwapStatus,
        PhotonPersistentDiskVolumeSource,
        PortStatus,
        PortworxVolumeSource,
        QuobyteVolumeSource,
        RbdPersistentVolumeSource,
        ScaleIoPersistentVolumeSource,
        SessionAffinityConfig,
        StorageOsPersistentVolumeSource,
        VsphereVirtualDiskVolumeSource,
    )
else:
    from kaito.runtime.kinds.deferred import (
        AttachedVolume,
        AwsElasticBlockStoreVolumeSource,
        AzureDiskVolumeSource,
        AzureFilePersistentVolumeSource,
        CephFsPersistentVolumeSource,
        CinderPersistentVolumeSource,
        ContainerImage,
        CsiPersistentVolumeSource,
        FcVolumeSource,
        FlexPersistentVolumeSource,
        FlockerVolumeSource,
        GcePersistentDiskVolumeSource,
        GlusterfsPersistentVolumeSource,
        IscsiPersistentVolumeSource,
        LocalVolumeSource,
        ModifyVolumeStatus,
        NfsVolumeSource,
        NodeConfigSource,
        NodeConfigStatus,
        NodeDaemonEndpoints,
        NodeFeatures,
        NodeRuntimeHandler,
        NodeSwapStatus,
        PhotonPersistentDiskVolumeSource,
        PortStatus,
        PortworxVolumeSource,
        QuobyteVolumeSource,
        RbdPersistentVolumeSource,
        ScaleIoPersistentVolumeSource,
        SessionAffinityConfig,
        StorageOsPersistentVolumeSource,
        VsphereVirtualDiskVolumeSource,
    )


class NamespaceSpec(Model):
    """Finalizers of the namespace itself."""

    finalizers: list[str] = []


class NamespaceCondition(Model):
    """Condition of a namespace that is being deleted: `NamespaceContentRemaining`, `NamespaceFinalizersRemaining`."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: Time | None = None


class NamespaceStatus(Model):
    """`Active` or `Terminating`, and what remains of a namespace that is being deleted."""

    phase: str = ""
    conditions: list[NamespaceCondition] = []


class Namespace(Resource, api="v1", kind="Namespace", namespaced=False):
    """A scope for names."""

    spec: NamespaceSpec = Field(default_factory=NamespaceSpec)
    status: NamespaceStatus = Field(default_factory=NamespaceStatus)


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
    config_source: NodeConfigSource | None = None
    external_id: str | None = None
    pod_cidrs: list[str] = []


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
    swap: NodeSwapStatus | None = None


class NodeStatus(Model):
    """Capacity and conditions that the kubelet reports."""

    capacity: dict[str, Quantity] = {}
    allocatable: dict[str, Quantity] = {}
    conditions: list[NodeCondition] = []
    addresses: list[NodeAddress] = []
    node_info: NodeSystemInfo = Field(default_factory=NodeSystemInfo)
    phase: str | None = None
    config: NodeConfigStatus | None = None
    daemon_endpoints: NodeDaemonEndpoints | None = None
    declared_features: list[str] = []
    features: NodeFeatures | None = None
    images: list[ContainerImage] = []
    runtime_handlers: list[NodeRuntimeHandler] = []
    volumes_attached: list[AttachedVolume] = []
    volumes_in_use: list[str] = []


class Node(Resource, api="v1", kind="Node", namespaced=False):
    """A machine that runs pods."""

    spec: NodeSpec = Field(default_factory=NodeSpec)
    status: NodeStatus = Field(default_factory=NodeStatus)

    def condition(self, condition_type: str) -> NodeCondition | None:
        """Returns the condition of the type, if present."""
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
    allocate_load_balancer_node_ports: bool | None = None
    external_ips: list[str] = []
    external_traffic_policy: str | None = None
    health_check_node_port: int | None = None
    load_balancer_class: str | None = None
    load_balancer_ip: str | None = None
    load_balancer_source_ranges: list[str] = []
    session_affinity_config: SessionAffinityConfig | None = None
    traffic_distribution: str | None = None


class LoadBalancerIngress(Model):
    """External address of a load balancer."""

    ip: str | None = None
    hostname: str | None = None
    ip_mode: str | None = None
    ports: list[PortStatus] = []


class LoadBalancerStatus(Model):
    """External addresses of a load balancer."""

    ingress: list[LoadBalancerIngress] = []


class ServiceStatus(Model):
    """Observed state of a Service."""

    load_balancer: LoadBalancerStatus = Field(default_factory=LoadBalancerStatus)
    conditions: list[Condition] = []


class Service(Resource, api="v1", kind="Service"):
    """A stable name and address for pods."""

    spec: ServiceSpec = Field(default_factory=ServiceSpec)
    status: ServiceStatus = Field(default_factory=ServiceStatus)


class ServiceAccount(Resource, api="v1", kind="ServiceAccount"):
    """Identity of pods at the API server."""

    secrets: list[ObjectReference] = []
    image_pull_secrets: list[LocalObjectReference] = []
    automount_service_account_token: bool | None = None


class PersistentVolumeClaimCondition(Model):
    """Condition of a claim: `Resizing`, `FileSystemResizePending`."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_probe_time: Time | None = None
    last_transition_time: Time | None = None


class PersistentVolumeClaimStatus(Model):
    """Phase, capacity and conditions of a claim."""

    phase: str = ""
    conditions: list[PersistentVolumeClaimCondition] = []
    access_modes: list[str] = []
    capacity: dict[str, Quantity] = {}
    allocated_resource_statuses: dict[str, str] = {}
    allocated_resources: dict[str, Quantity] = {}
    current_volume_attributes_class_name: str | None = None
    modify_volume_status: ModifyVolumeStatus | None = None


class PersistentVolumeClaim(Resource, api="v1", kind="PersistentVolumeClaim"):
    """A request for storage."""

    spec: PersistentVolumeClaimSpec = Field(default_factory=PersistentVolumeClaimSpec)
    status: PersistentVolumeClaimStatus = Field(default_factory=PersistentVolumeClaimStatus)


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
    aws_elastic_block_store: AwsElasticBlockStoreVolumeSource | None = None
    azure_disk: AzureDiskVolumeSource | None = None
    azure_file: AzureFilePersistentVolumeSource | None = None
    cephfs: CephFsPersistentVolumeSource | None = None
    cinder: CinderPersistentVolumeSource | None = None
    csi: CsiPersistentVolumeSource | None = None
    fc: FcVolumeSource | None = None
    flex_volume: FlexPersistentVolumeSource | None = None
    flocker: FlockerVolumeSource | None = None
    gce_persistent_disk: GcePersistentDiskVolumeSource | None = None
    glusterfs: GlusterfsPersistentVolumeSource | None = None
    host_path: HostPathVolumeSource | None = None
    iscsi: IscsiPersistentVolumeSource | None = None
    local: LocalVolumeSource | None = None
    mount_options: list[str] = []
    nfs: NfsVolumeSource | None = None
    photon_persistent_disk: PhotonPersistentDiskVolumeSource | None = None
    portworx_volume: PortworxVolumeSource | None = None
    quobyte: QuobyteVolumeSource | None = None
    rbd: RbdPersistentVolumeSource | None = None
    scale_io: ScaleIoPersistentVolumeSource | None = Field(default=None, alias="scaleIO")
    storageos: StorageOsPersistentVolumeSource | None = None
    volume_attributes_class_name: str | None = None
    vsphere_volume: VsphereVirtualDiskVolumeSource | None = None


class PersistentVolumeStatus(Model):
    """Phase of a volume."""

    phase: str = ""
    reason: str = ""
    message: str = ""
    last_phase_transition_time: Time | None = None


class PersistentVolume(Resource, api="v1", kind="PersistentVolume", namespaced=False):
    """Storage volume of the cluster."""

    spec: PersistentVolumeSpec = Field(default_factory=PersistentVolumeSpec)
    status: PersistentVolumeStatus = Field(default_factory=PersistentVolumeStatus)
