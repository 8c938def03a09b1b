"""Pods and pod templates."""

from typing import TYPE_CHECKING

from pydantic import Field

from kaito.runtime.kinds.containers import Container, ResourceRequirements
from kaito.runtime.kinds.references import LocalObjectReference
from kaito.runtime.meta import LabelSelector, Model, ObjectMeta, Quantity, Resource, Time

if TYPE_CHECKING:
    from kaito.runtime.kinds.structs import (
        AppArmorProfile,
        AwsElasticBlockStoreVolumeSource,
        AzureDiskVolumeSource,
        AzureFileVolumeSource,
        CephFsVolumeSource,
        CinderVolumeSource,
        ContainerUser,
        DownwardApiVolumeSource,
        EphemeralContainer,
        FcVolumeSource,
        FlexVolumeSource,
        FlockerVolumeSource,
        GcePersistentDiskVolumeSource,
        GitRepoVolumeSource,
        GlusterfsVolumeSource,
        HostAlias,
        HostIP,
        ImageVolumeSource,
        IscsiVolumeSource,
        NfsVolumeSource,
        PhotonPersistentDiskVolumeSource,
        PodDnsConfig,
        PodExtendedResourceClaimStatus,
        PodOs,
        PodReadinessGate,
        PodResourceClaim,
        PodResourceClaimStatus,
        PodSchedulingGate,
        PortworxVolumeSource,
        ProjectedVolumeSource,
        QuobyteVolumeSource,
        RbdVolumeSource,
        ResourceStatus,
        ScaleIoVolumeSource,
        SeccompProfile,
        SeLinuxOptions,
        StorageOsVolumeSource,
        Sysctl,
        TypedLocalObjectReference,
        TypedObjectReference,
        VolumeMountStatus,
        VsphereVirtualDiskVolumeSource,
        WindowsSecurityContextOptions,
        WorkloadReference,
    )
else:
    from kaito.runtime.kinds.deferred import (
        AppArmorProfile,
        AwsElasticBlockStoreVolumeSource,
        AzureDiskVolumeSource,
        AzureFileVolumeSource,
        CephFsVolumeSource,
        CinderVolumeSource,
        ContainerUser,
        DownwardApiVolumeSource,
        EphemeralContainer,
        FcVolumeSource,
        FlexVolumeSource,
        FlockerVolumeSource,
        GcePersistentDiskVolumeSource,
        GitRepoVolumeSource,
        GlusterfsVolumeSource,
        HostAlias,
        HostIP,
        ImageVolumeSource,
        IscsiVolumeSource,
        NfsVolumeSource,
        PhotonPersistentDiskVolumeSource,
        PodDnsConfig,
        PodExtendedResourceClaimStatus,
        PodOs,
        PodReadinessGate,
        PodResourceClaim,
        PodResourceClaimStatus,
        PodSchedulingGate,
        PortworxVolumeSource,
        ProjectedVolumeSource,
        QuobyteVolumeSource,
        RbdVolumeSource,
        ResourceStatus,
        ScaleIoVolumeSource,
        SeccompProfile,
        SeLinuxOptions,
        StorageOsVolumeSource,
        Sysctl,
        TypedLocalObjectReference,
        TypedObjectReference,
        VolumeMountStatus,
        VsphereVirtualDiskVolumeSource,
        WindowsSecurityContextOptions,
        WorkloadReference,
    )


class Toleration(Model):
    """Taint that a pod tolerates."""

    key: str | None = None
    operator: str | None = None
    """`Equal` or `Exists`, or a value of a newer API server."""
    value: str | None = None
    effect: str | None = None
    """`NoSchedule`, `PreferNoSchedule` or `NoExecute`, or a value of a newer API server."""
    toleration_seconds: int | None = None


class KeyToPath(Model):
    """One key projected to a file."""

    key: str
    path: str
    mode: int | None = None


class ConfigMapVolumeSource(Model):
    """A ConfigMap as files."""

    name: str = ""
    items: list[KeyToPath] = []
    default_mode: int | None = None
    optional: bool | None = None


class SecretVolumeSource(Model):
    """A Secret as files."""

    secret_name: str = ""
    items: list[KeyToPath] = []
    default_mode: int | None = None
    optional: bool | None = None


class EmptyDirVolumeSource(Model):
    """Directory that is deleted with the pod; medium `Memory` is a tmpfs."""

    medium: str | None = None
    size_limit: Quantity | None = None


class HostPathVolumeSource(Model):
    """Directory or file of the node."""

    path: str
    type: str | None = None


class PersistentVolumeClaimVolumeSource(Model):
    """A claim in the pod's namespace."""

    claim_name: str
    read_only: bool | None = None


class EphemeralVolumeSource(Model):
    """Claim that is created and deleted with the pod; the template is a PersistentVolumeClaim without kind."""

    volume_claim_template: "PersistentVolumeClaimTemplate | None" = None


class VolumeResourceRequirements(Model):
    """Storage that a claim requests."""

    requests: dict[str, Quantity] = {}
    limits: dict[str, Quantity] = {}


class PersistentVolumeClaimSpec(Model):
    """Requested storage of a claim."""

    access_modes: list[str] = []
    resources: VolumeResourceRequirements = Field(default_factory=VolumeResourceRequirements)
    storage_class_name: str | None = None
    volume_name: str | None = None
    volume_mode: str | None = None
    selector: LabelSelector | None = None
    data_source: TypedLocalObjectReference | None = None
    data_source_ref: TypedObjectReference | None = None
    volume_attributes_class_name: str | None = None


class PersistentVolumeClaimTemplate(Model):
    """Metadata and spec of a claim that is created for a pod."""

    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: PersistentVolumeClaimSpec = Field(default_factory=PersistentVolumeClaimSpec)


class CsiVolumeSource(Model):
    """An inline volume of a storage driver."""

    driver: str
    read_only: bool | None = None
    volume_attributes: dict[str, str] = {}
    fs_type: str | None = None
    node_publish_secret_ref: LocalObjectReference | None = None


class Volume(Model):
    """A volume of a pod; one source is set."""

    name: str
    config_map: ConfigMapVolumeSource | None = None
    secret: SecretVolumeSource | None = None
    empty_dir: EmptyDirVolumeSource | None = None
    host_path: HostPathVolumeSource | None = None
    persistent_volume_claim: PersistentVolumeClaimVolumeSource | None = None
    ephemeral: EphemeralVolumeSource | None = None
    csi: CsiVolumeSource | None = None
    aws_elastic_block_store: AwsElasticBlockStoreVolumeSource | None = None
    azure_disk: AzureDiskVolumeSource | None = None
    azure_file: AzureFileVolumeSource | None = None
    cephfs: CephFsVolumeSource | None = None
    cinder: CinderVolumeSource | None = None
    downward_api: DownwardApiVolumeSource | None = Field(default=None, alias="downwardAPI")
    fc: FcVolumeSource | None = None
    flex_volume: FlexVolumeSource | None = None
    flocker: FlockerVolumeSource | None = None
    gce_persistent_disk: GcePersistentDiskVolumeSource | None = None
    git_repo: GitRepoVolumeSource | None = None
    glusterfs: GlusterfsVolumeSource | None = None
    image: ImageVolumeSource | None = None
    iscsi: IscsiVolumeSource | None = None
    nfs: NfsVolumeSource | None = None
    photon_persistent_disk: PhotonPersistentDiskVolumeSource | None = None
    portworx_volume: PortworxVolumeSource | None = None
    projected: ProjectedVolumeSource | None = None
    quobyte: QuobyteVolumeSource | None = None
    rbd: RbdVolumeSource | None = None
    scale_io: ScaleIoVolumeSource | None = Field(default=None, alias="scaleIO")
    storageos: StorageOsVolumeSource | None = None
    vsphere_volume: VsphereVirtualDiskVolumeSource | None = None


class NodeSelectorRequirement(Model):
    """One expression over a node's labels or fields."""

    key: str
    operator: str
    """`In`, `NotIn`, `Exists`, `DoesNotExist`, `Gt` or `Lt`, or a value of a newer API server."""
    values: list[str] = []


class NodeSelectorTerm(Model):
    """Requirements that must all match."""

    match_expressions: list[NodeSelectorRequirement] = []
    match_fields: list[NodeSelectorRequirement] = []


class NodeSelector(Model):
    """Terms of which one must match."""

    node_selector_terms: list[NodeSelectorTerm] = []


class PreferredSchedulingTerm(Model):
    """Weighted preference for nodes."""

    weight: int
    preference: NodeSelectorTerm


class NodeAffinity(Model):
    """Required and preferred nodes of a pod."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = None
    preferred_during_scheduling_ignored_during_execution: list[PreferredSchedulingTerm] = []


class PodAffinityTerm(Model):
    """Pods to be close to, or apart from."""

    topology_key: str
    label_selector: LabelSelector | None = None
    namespaces: list[str] = []
    match_label_keys: list[str] = []
    mismatch_label_keys: list[str] = []
    namespace_selector: LabelSelector | None = None


class WeightedPodAffinityTerm(Model):
    """Weighted preference for affinity to pods."""

    weight: int
    pod_affinity_term: PodAffinityTerm


class PodAffinity(Model):
    """Required and preferred affinity to pods, or anti-affinity."""

    required_during_scheduling_ignored_during_execution: list[PodAffinityTerm] = []
    preferred_during_scheduling_ignored_during_execution: list[WeightedPodAffinityTerm] = []


class Affinity(Model):
    """Placement rules of a pod."""

    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAffinity | None = None


class TopologySpreadConstraint(Model):
    """Maximum skew of pods over the domains of a topology."""

    max_skew: int
    topology_key: str
    when_unsatisfiable: str
    label_selector: LabelSelector | None = None
    match_label_keys: list[str] = []
    min_domains: int | None = None
    node_affinity_policy: str | None = None
    node_taints_policy: str | None = None


class PodSecurityContext(Model):
    """Privileges of all containers of a pod."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    fs_group: int | None = None
    supplemental_groups: list[int] = []
    app_armor_profile: AppArmorProfile | None = None
    fs_group_change_policy: str | None = None
    se_linux_change_policy: str | None = None
    se_linux_options: SeLinuxOptions | None = None
    seccomp_profile: SeccompProfile | None = None
    supplemental_groups_policy: str | None = None
    sysctls: list[Sysctl] = []
    windows_options: WindowsSecurityContextOptions | None = None


class PodSpec(Model):
    """Containers, volumes and scheduling of a pod."""

    containers: list[Container] = []
    init_containers: list[Container] = []
    volumes: list[Volume] = []
    node_name: str | None = None
    node_selector: dict[str, str] = {}
    affinity: Affinity | None = None
    tolerations: list[Toleration] = []
    topology_spread_constraints: list[TopologySpreadConstraint] = []
    restart_policy: str | None = None
    """`Always`, `OnFailure` or `Never`, or a value of a newer API server."""
    termination_grace_period_seconds: int | None = None
    active_deadline_seconds: int | None = None
    service_account_name: str | None = None
    automount_service_account_token: bool | None = None
    image_pull_secrets: list[LocalObjectReference] = []
    security_context: PodSecurityContext | None = None
    host_network: bool | None = None
    host_pid: bool | None = None
    host_ipc: bool | None = None
    hostname: str | None = None
    subdomain: str | None = None
    dns_policy: str | None = None
    priority_class_name: str | None = None
    runtime_class_name: str | None = None
    scheduler_name: str | None = None
    share_process_namespace: bool | None = None
    enable_service_links: bool | None = None
    dns_config: PodDnsConfig | None = None
    ephemeral_containers: list[EphemeralContainer] = []
    host_aliases: list[HostAlias] = []
    host_users: bool | None = None
    hostname_override: str | None = None
    os: PodOs | None = None
    overhead: dict[str, Quantity] = {}
    preemption_policy: str | None = None
    priority: int | None = None
    readiness_gates: list[PodReadinessGate] = []
    resource_claims: list[PodResourceClaim] = []
    resources: ResourceRequirements | None = None
    scheduling_gates: list[PodSchedulingGate] = []
    service_account: str | None = None
    set_hostname_as_fqdn: bool | None = Field(default=None, alias="setHostnameAsFQDN")
    workload_ref: WorkloadReference | None = None


class PodTemplateSpec(Model):
    """Template of a workload's pods."""

    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: PodSpec = Field(default_factory=PodSpec)


class ContainerStateWaiting(Model):
    """Reason why a container is waiting."""

    reason: str = ""
    message: str = ""


class ContainerStateRunning(Model):
    """Start time of a running container."""

    started_at: Time | None = None


class ContainerStateTerminated(Model):
    """Exit code and reason of a terminated container."""

    exit_code: int = 0
    signal: int | None = None
    reason: str = ""
    message: str = ""
    started_at: Time | None = None
    finished_at: Time | None = None
    container_id: str | None = None


class ContainerState(Model):
    """At most one is set; none means waiting."""

    waiting: ContainerStateWaiting | None = None
    running: ContainerStateRunning | None = None
    terminated: ContainerStateTerminated | None = None


class ContainerStatus(Model):
    """The observed state of one container."""

    name: str
    ready: bool = False
    started: bool | None = None
    restart_count: int = 0
    image: str = ""
    image_id: str = ""
    container_id: str | None = None
    state: ContainerState = Field(default_factory=ContainerState)
    last_state: ContainerState = Field(default_factory=ContainerState)
    allocated_resources: dict[str, Quantity] = {}
    allocated_resources_status: list[ResourceStatus] = []
    resources: ResourceRequirements | None = None
    stop_signal: str | None = None
    user: ContainerUser | None = None
    volume_mounts: list[VolumeMountStatus] = []


class PodCondition(Model):
    """A condition of a pod: `PodScheduled`, `Initialized`, `ContainersReady`, `Ready`."""

    type: str
    status: str
    reason: str | None = None
    message: str | None = None
    last_probe_time: Time | None = None
    last_transition_time: Time | None = None
    observed_generation: int | None = None


class PodIP(Model):
    """One address of a pod."""

    ip: str = ""


class PodStatus(Model):
    """The observed state of a pod."""

    phase: str = ""
    """`Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`, or a value of a newer API server."""
    reason: str = ""
    message: str = ""
    conditions: list[PodCondition] = []
    container_statuses: list[ContainerStatus] = []
    init_container_statuses: list[ContainerStatus] = []
    host_ip: str | None = None
    pod_ip: str | None = None
    pod_ips: list[PodIP] = []
    start_time: Time | None = None
    nominated_node_name: str | None = None
    qos_class: str | None = None
    allocated_resources: dict[str, Quantity] = {}
    ephemeral_container_statuses: list[ContainerStatus] = []
    extended_resource_claim_status: PodExtendedResourceClaimStatus | None = None
    host_ips: list[HostIP] = []
    observed_generation: int | None = None
    resize: str | None = None
    resource_claim_statuses: list[PodResourceClaimStatus] = []
    resources: ResourceRequirements | None = None


class Pod(Resource, api="v1", kind="Pod"):
    """Containers that run together on one node."""

    spec: PodSpec = Field(default_factory=PodSpec)
    status: PodStatus = Field(default_factory=PodStatus)

    def condition(self, condition_type: str) -> PodCondition | None:
        """Returns the condition of the type, if present."""
        return next((condition for condition in self.status.conditions if condition.type == condition_type), None)

    @property
    def is_ready(self) -> bool:
        """Whether the pod is ready and not being deleted."""
        ready = self.condition("Ready")
        return ready is not None and ready.status == "True" and not self.deleting
