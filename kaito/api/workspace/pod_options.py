"""`podOptions` of a preset: fields of its pods that the user may set."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from kaito.api.schema import LabelValue, ObjectName, RawObject
from kaito.runtime.crd import Rule, rules as field_rules
from kaito.runtime.meta import Model, Quantity

_MAX_ITEMS = 32

_AnnotationValue = Annotated[str, Field(json_schema_extra={"maxLength": 8192})]


class EnvironmentVariable(Model):
    """An environment variable."""

    rules: ClassVar = [
        Rule(
            "!(has(self.value) && has(self.valueFrom))", "has value and valueFrom: remove one", field_path=".valueFrom"
        )
    ]

    name: Annotated[str, Field(json_schema_extra={"minLength": 1, "maxLength": 253})]
    """Name of the variable."""

    value: Annotated[str, Field(json_schema_extra={"maxLength": 8192})] | None = None
    """Value of the variable."""

    value_from: RawObject | None = None
    """A core/v1 EnvVarSource, for example `{secretKeyRef: {name: proxy, key: url}}`."""


class PodResources(Model):
    """Resource requests and limits of a container, without its GPUs."""

    requests: Annotated[dict[str, Quantity], Field(json_schema_extra={"maxProperties": 16})] = Field(
        default_factory=dict[str, Quantity]
    )
    """Requests by resource, for example `memory: 64Gi`. They replace the controller's defaults."""

    limits: Annotated[dict[str, Quantity], Field(json_schema_extra={"maxProperties": 16})] = Field(
        default_factory=dict[str, Quantity]
    )
    """Limits by resource."""


class PodToleration(Model):
    """A taint that the pods tolerate."""

    key: Annotated[str, Field(json_schema_extra={"maxLength": 317})] | None = None
    """Key of the taint; absent for every key, with operator `Exists`."""

    operator: Literal["Equal", "Exists"] | None = None
    """`Equal` (the default) compares the value; `Exists` does not."""

    value: LabelValue | None = None
    """Value of the taint."""

    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; absent for every effect."""

    toleration_seconds: int | None = None
    """Time that the pods stay on a node with a `NoExecute` taint."""


class PodOptions(Model):
    """Fields of the pods of a preset. They are added to the controller's and to the installation's defaults
    (`--pod-defaults`), and override the latter. A change replaces the pods."""

    image_pull_secrets: Annotated[list[ObjectName], Field(json_schema_extra={"maxItems": 16})] = Field(
        default_factory=list[str]
    )
    """Secrets (same namespace, key `.dockerconfigjson`) for every image and artifact of the pods."""

    resources: PodResources = Field(default_factory=PodResources)
    """CPU, memory and other resources of the containers. The controller sets the GPUs."""

    env: Annotated[
        list[EnvironmentVariable],
        Field(
            json_schema_extra=field_rules(
                Rule(
                    "self.all(v, !v.name.startsWith('KAITO_') && "
                    "!(v.name in ['DATA_URLS', 'HF_HUB_CACHE', 'HF_TOKEN']))",
                    "has a variable that the controller sets (KAITO_*, DATA_URLS, HF_HUB_CACHE, HF_TOKEN): remove it; "
                    "a token belongs into presetOptions.modelAccessSecret",
                ),
                maxItems=_MAX_ITEMS,
            )
        ),
    ] = Field(default_factory=list[EnvironmentVariable])
    """Environment variables of all containers, init containers included, for example proxies."""

    service_account_name: ObjectName = ""
    """ServiceAccount of the pods (same namespace). Its token is not mounted."""

    tolerations: Annotated[list[PodToleration], Field(json_schema_extra={"maxItems": _MAX_ITEMS})] = Field(
        default_factory=list[PodToleration]
    )
    """Further tolerations. A node whose taints they tolerate counts as usable."""

    node_selector: Annotated[dict[str, LabelValue], Field(json_schema_extra={"maxProperties": 16})] = Field(
        default_factory=dict[str, str]
    )
    """Further labels of the nodes that the pods run on."""

    pod_security_context: RawObject | None = None
    """Fields of a core/v1 PodSecurityContext. They replace the controller's fields of the same name."""

    security_context: RawObject | None = None
    """Fields of a core/v1 SecurityContext for all containers. They replace the controller's fields of the same name."""

    volumes: Annotated[list[RawObject], Field(json_schema_extra={"maxItems": _MAX_ITEMS})] = Field(
        default_factory=list[RawObject]
    )
    """Further core/v1 Volumes."""

    volume_mounts: Annotated[list[RawObject], Field(json_schema_extra={"maxItems": _MAX_ITEMS})] = Field(
        default_factory=list[RawObject]
    )
    """Mounts (core/v1 VolumeMount) of these volumes in all containers, init containers included."""

    priority_class_name: ObjectName = ""
    """PriorityClass of the pods."""

    runtime_class_name: ObjectName = ""
    """RuntimeClass of the pods, for example `nvidia` where the default runtime of the nodes provides no GPUs."""

    labels: Annotated[dict[str, LabelValue], Field(json_schema_extra={"maxProperties": 32})] = Field(
        default_factory=dict[str, str]
    )
    """Labels of the pods. Keys that the controllers own are reserved."""

    annotations: Annotated[dict[str, _AnnotationValue], Field(json_schema_extra={"maxProperties": 32})] = Field(
        default_factory=dict[str, str]
    )
    """Annotations of the pods. Keys in `kaito.sh` are reserved."""
