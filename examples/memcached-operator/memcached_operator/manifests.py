"""Manifests of the objects that a Memcached consists of: pure functions."""

from kaito.runtime import LabelSelector, ObjectMeta, Quantity
from kaito.runtime.kinds import (
    Container,
    ContainerPort,
    Deployment,
    DeploymentSpec,
    PodSpec,
    PodTemplateSpec,
    Probe,
    ResourceRequirements,
    SecretVolumeSource,
    Service,
    ServicePort,
    ServiceSpec,
    TcpSocketAction,
    Volume,
    VolumeMount,
)

from memcached_operator.api import Memcached

PORT = 11211
SECRET_VERSION = "cache.example.com/secret-version"


def service_for(memcached: Memcached) -> Service:
    """Renders the Service of the servers."""
    return Service(
        metadata=ObjectMeta(name=memcached.name),
        spec=ServiceSpec(selector=_labels(memcached), ports=[ServicePort(name="memcached", port=PORT)]),
    )


def deployment_for(memcached: Memcached, secret_version: str) -> Deployment:
    """Renders the Deployment. The version of the Secret is in the pod template, so a new version rolls the servers."""
    return Deployment(
        metadata=ObjectMeta(name=memcached.name),
        spec=DeploymentSpec(
            replicas=memcached.spec.size,
            selector=LabelSelector(match_labels=_labels(memcached)),
            template=PodTemplateSpec(
                metadata=ObjectMeta(labels=_labels(memcached), annotations={SECRET_VERSION: secret_version}),
                spec=_pod(memcached),
            ),
        ),
    )


def _labels(memcached: Memcached) -> dict[str, str]:
    return {"app.kubernetes.io/name": "memcached", "app.kubernetes.io/instance": memcached.name}


def _pod(memcached: Memcached) -> PodSpec:
    command = ["memcached", f"--memory-limit={memcached.spec.memory_mib}"]
    mounts: list[VolumeMount] = []
    volumes: list[Volume] = []
    if memcached.spec.auth_secret:
        command.append("--auth-file=/auth/auth")
        mounts.append(VolumeMount(name="auth", mount_path="/auth", read_only=True))
        volumes.append(Volume(name="auth", secret=SecretVolumeSource(secret_name=memcached.spec.auth_secret)))
    container = Container(
        name="memcached",
        image="memcached:1.6-alpine",
        command=command,
        ports=[ContainerPort(name="memcached", container_port=PORT)],
        resources=ResourceRequirements(requests={"memory": Quantity(f"{memcached.spec.memory_mib + 32}Mi")}),
        readiness_probe=Probe(tcp_socket=TcpSocketAction(port=PORT)),
        volume_mounts=mounts,
    )
    return PodSpec(containers=[container], volumes=volumes)
