"""Pods and pod templates: the fields that operators use."""

from kaito.runtime.kinds.references import LocalObjectReference
from kaito.runtime.meta import IntOrString, LabelSelector, Model, ObjectMeta, Quantity, Resource, Time


class KeySelector(Model):
    """One key of a ConfigMap or Secret."""

    name: str = ""
    key: str
    optional: bool | None = None


class FieldSelector(Model):
    """Field of the pod."""

    field_path: str
    api_version: str | None = None


class ResourceFieldSelector(Model):
    """A container's resource request or limit."""

    resource: str
    container_name: str | None = None
    divisor: Quantity | None = None


class EnvVarSource(Model):
    """Source of an environment variable's value; exactly one is set."""

    config_map_key_ref: KeySelector | None = None
    secret_key_ref: KeySelector | None = None
    field_ref: FieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None


class EnvVar(Model):
    """One environment variable."""

    name: str
    value: str | None = None
    value_from: EnvVarSource | None = None


class EnvFromSource(Model):
    """All keys of a ConfigMap or Secret as environment variables."""

    prefix: str | None = None
    config_map_ref: LocalObjectReference | None = None
    secret_ref: LocalObjectReference | None = None


class ContainerPort(Model):
    """A port a container listens on."""

    container_port: int
    name: str | None = None
    protocol: str | None = None
    host_port: int | None = None


class ResourceRequirements(Model):
    """Resource requests and limits of a container."""

    requests: dict[str, Quantity] = {}
    limits: dict[str, Quantity] = {}


class VolumeMount(Model):
    """Mount of a volume in a container."""

    name: str
    mount_path: str
    read_only: bool | None = None
    sub_path: str | None = None
    mount_propagation: str | None = None


class HttpHeader(Model):
    """A header of an HTTP probe."""

    name: str
    value: str


class HttpGetAction(Model):
    """An HTTP request to the container; 200 to 399 is success."""

    path: str | None = None
    port: IntOrString
    host: str | None = None
    scheme: str | None = None
    http_headers: list[HttpHeader] = []


class ExecAction(Model):
    """A command in the container; exit code 0 is success."""

    command: list[str] = []


class TcpSocketAction(Model):
    """A TCP connection to the container."""

    port: IntOrString
    host: str | None = None


class Probe(Model):
    """A periodic check of a container."""

    http_get: HttpGetAction | None = None
    exec: ExecAction | None = None
    tcp_socket: TcpSocketAction | None = None
    initial_delay_seconds: int | None = None
    timeout_seconds: int | None = None
    period_seconds: int | None = None
    success_threshold: int | None = None
    failure_threshold: int | None = None
    termination_grace_period_seconds: int | None = None


class LifecycleHandler(Model):
    """An action at a container's start or stop."""

    exec: ExecAction | None = None
    http_get: HttpGetAction | None = None


class Lifecycle(Model):
    """Lifecycle hooks of a container."""

    post_start: LifecycleHandler | None = None
    pre_stop: LifecycleHandler | None = None


class Capabilities(Model):
    """Linux capabilities to add or drop."""

    add: list[str] = []
    drop: list[str] = []


class SecurityContext(Model):
    """Privileges of one container."""

    privileged: bool | None = None
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    read_only_root_filesystem: bool | None = None
    allow_privilege_escalation: bool | None = None
    capabilities: Capabilities | None = None


class PodSecurityContext(Model):
    """Privileges of all containers of a pod."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    fs_group: int | None = None
    supplemental_groups: list[int] = []


class Container(Model):
    """One container of a pod."""

    name: str
    image: str | None = None
    command: list[str] = []
    args: list[str] = []
    working_dir: str | None = None
    ports: list[ContainerPort] = []
    env: list[EnvVar] = []
    env_from: list[EnvFromSource] = []
    resources: ResourceRequirements = ResourceRequirements()
    volume_mounts: list[VolumeMount] = []
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    startup_probe: Probe | None = None
    lifecycle: Lifecycle | None = None
    image_pull_policy: str | None = None
    """`Always`, `IfNotPresent` or `Never`, or a value of a newer API server."""
    restart_policy: str | None = None
    security_context: SecurityContext | None = None
    termination_message_path: str | None = None
    termination_message_policy: str | None = None


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
    resources: VolumeResourceRequirements = VolumeResourceRequirements()
    storage_class_name: str | None = None
    volume_name: str | None = None
    volume_mode: str | None = None
    selector: LabelSelector | None = None


class PersistentVolumeClaimTemplate(Model):
    """Metadata and spec of a claim that is created for a pod."""

    metadata: ObjectMeta = ObjectMeta()
    spec: PersistentVolumeClaimSpec = PersistentVolumeClaimSpec()


class CsiVolumeSource(Model):
    """An inline volume of a storage driver."""

    driver: str
    read_only: bool | None = None
    volume_attributes: dict[str, str] = {}


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


class PodTemplateSpec(Model):
    """Template of a workload's pods."""

    metadata: ObjectMeta = ObjectMeta()
    spec: PodSpec = PodSpec()


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
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class PodCondition(Model):
    """A condition of a pod: `PodScheduled`, `Initialized`, `ContainersReady`, `Ready`."""

    type: str
    status: str
    reason: str | None = None
    message: str | None = None
    last_probe_time: Time | None = None
    last_transition_time: Time | None = None


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


class Pod(Resource, api="v1", kind="Pod"):
    """Containers that run together on one node."""

    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    def condition(self, condition_type: str) -> PodCondition | None:
        """Return the condition of the type, if present."""
        return next((condition for condition in self.status.conditions if condition.type == condition_type), None)

    @property
    def is_ready(self) -> bool:
        """Whether the pod is ready and not being deleted."""
        ready = self.condition("Ready")
        return ready is not None and ready.status == "True" and not self.deleting
