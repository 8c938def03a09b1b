"""Containers of pods, with their probes, environment and resources."""

from typing import TYPE_CHECKING

from pydantic import Field

from kaito.runtime.kinds.references import LocalObjectReference
from kaito.runtime.meta import IntOrString, Model, Quantity

if TYPE_CHECKING:
    from kaito.runtime.kinds.structs import (
        AppArmorProfile,
        ContainerResizePolicy,
        ContainerRestartRule,
        FileKeySelector,
        GrpcAction,
        ResourceClaim,
        SeccompProfile,
        SeLinuxOptions,
        SleepAction,
        VolumeDevice,
        WindowsSecurityContextOptions,
    )
else:
    from kaito.runtime.kinds.deferred import (
        AppArmorProfile,
        ContainerResizePolicy,
        ContainerRestartRule,
        FileKeySelector,
        GrpcAction,
        ResourceClaim,
        SeccompProfile,
        SeLinuxOptions,
        SleepAction,
        VolumeDevice,
        WindowsSecurityContextOptions,
    )


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
    file_key_ref: FileKeySelector | None = None


class EnvVar(Model):
    """One environment variable."""

    name: str
    value: str | None = None
    value_from: EnvVarSource | None = None


class ConfigMapEnvSource(LocalObjectReference):
    """A ConfigMap whose keys become environment variables."""

    optional: bool | None = None


class SecretEnvSource(LocalObjectReference):
    """A Secret whose keys become environment variables."""

    optional: bool | None = None


class EnvFromSource(Model):
    """All keys of a ConfigMap or Secret as environment variables."""

    prefix: str | None = None
    config_map_ref: ConfigMapEnvSource | None = None
    secret_ref: SecretEnvSource | None = None


class ContainerPort(Model):
    """A port a container listens on."""

    container_port: int
    name: str | None = None
    protocol: str | None = None
    host_port: int | None = None
    host_ip: str | None = None


class ResourceRequirements(Model):
    """Resource requests and limits of a container."""

    requests: dict[str, Quantity] = {}
    limits: dict[str, Quantity] = {}
    claims: list[ResourceClaim] = []


class VolumeMount(Model):
    """Mount of a volume in a container."""

    name: str
    mount_path: str
    read_only: bool | None = None
    sub_path: str | None = None
    mount_propagation: str | None = None
    recursive_read_only: str | None = None
    sub_path_expr: str | None = None


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
    grpc: GrpcAction | None = None


class LifecycleHandler(Model):
    """An action at a container's start or stop."""

    exec: ExecAction | None = None
    http_get: HttpGetAction | None = None
    sleep: SleepAction | None = None
    tcp_socket: TcpSocketAction | None = None


class Lifecycle(Model):
    """Lifecycle hooks of a container."""

    post_start: LifecycleHandler | None = None
    pre_stop: LifecycleHandler | None = None
    stop_signal: str | None = None


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
    app_armor_profile: AppArmorProfile | None = None
    proc_mount: str | None = None
    se_linux_options: SeLinuxOptions | None = None
    seccomp_profile: SeccompProfile | None = None
    windows_options: WindowsSecurityContextOptions | None = None


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
    resources: ResourceRequirements = Field(default_factory=ResourceRequirements)
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
    resize_policy: list[ContainerResizePolicy] = []
    restart_policy_rules: list[ContainerRestartRule] = []
    stdin: bool | None = None
    stdin_once: bool | None = None
    tty: bool | None = None
    volume_devices: list[VolumeDevice] = []
