"""Models of the built-in kinds with every field of Kubernetes 1.35; fields of later releases are preserved.

Structs are never None (`pod.status.phase`), and only fields that were set are written. Every kind and struct can be
imported from this package; each is loaded on first use, because creating the class of a struct takes about a
millisecond, and there are three hundred. `structs` has the generated ones, which the objects of most clusters lack:
fields of them are loaded when the first object has them.
"""

from typing import TYPE_CHECKING, Any

from kaito.runtime.kinds.structs.index import MODULE_OF
from kaito.runtime.lazy import load

if TYPE_CHECKING:
    from kaito.runtime.kinds.admission import (
        MatchCondition as MatchCondition,
        MutatingWebhook as MutatingWebhook,
        MutatingWebhookConfiguration as MutatingWebhookConfiguration,
        RuleWithOperations as RuleWithOperations,
        ServiceReference as ServiceReference,
        ValidatingWebhook as ValidatingWebhook,
        ValidatingWebhookConfiguration as ValidatingWebhookConfiguration,
        WebhookClientConfig as WebhookClientConfig,
    )
    from kaito.runtime.kinds.apiextensions import (
        CustomResourceConversion as CustomResourceConversion,
        CustomResourceDefinition as CustomResourceDefinition,
        CustomResourceDefinitionCondition as CustomResourceDefinitionCondition,
        CustomResourceDefinitionNames as CustomResourceDefinitionNames,
        CustomResourceDefinitionSpec as CustomResourceDefinitionSpec,
        CustomResourceDefinitionStatus as CustomResourceDefinitionStatus,
        CustomResourceDefinitionVersion as CustomResourceDefinitionVersion,
        WebhookConversion as WebhookConversion,
    )
    from kaito.runtime.kinds.apps import (
        ControllerRevision as ControllerRevision,
        DaemonSet as DaemonSet,
        DaemonSetSpec as DaemonSetSpec,
        DaemonSetStatus as DaemonSetStatus,
        Deployment as Deployment,
        DeploymentSpec as DeploymentSpec,
        DeploymentStatus as DeploymentStatus,
        DeploymentStrategy as DeploymentStrategy,
        RollingUpdateDeployment as RollingUpdateDeployment,
        RollingUpdateStatefulSet as RollingUpdateStatefulSet,
        StatefulSet as StatefulSet,
        StatefulSetRetentionPolicy as StatefulSetRetentionPolicy,
        StatefulSetSpec as StatefulSetSpec,
        StatefulSetStatus as StatefulSetStatus,
        StatefulSetUpdateStrategy as StatefulSetUpdateStrategy,
        WorkloadCondition as WorkloadCondition,
    )
    from kaito.runtime.kinds.authentication import (
        TokenReview as TokenReview,
        TokenReviewSpec as TokenReviewSpec,
        TokenReviewStatus as TokenReviewStatus,
        UserInfo as UserInfo,
    )
    from kaito.runtime.kinds.authorization import (
        NonResourceAttributes as NonResourceAttributes,
        ResourceAttributes as ResourceAttributes,
        SubjectAccessReview as SubjectAccessReview,
        SubjectAccessReviewSpec as SubjectAccessReviewSpec,
        SubjectAccessReviewStatus as SubjectAccessReviewStatus,
    )
    from kaito.runtime.kinds.batch import (
        CronJob as CronJob,
        CronJobSpec as CronJobSpec,
        CronJobStatus as CronJobStatus,
        Job as Job,
        JobSpec as JobSpec,
        JobStatus as JobStatus,
        JobTemplateSpec as JobTemplateSpec,
    )
    from kaito.runtime.kinds.config import (
        ConfigMap as ConfigMap,
        Secret as Secret,
    )
    from kaito.runtime.kinds.containers import (
        Capabilities as Capabilities,
        ConfigMapEnvSource as ConfigMapEnvSource,
        Container as Container,
        ContainerPort as ContainerPort,
        EnvFromSource as EnvFromSource,
        EnvVar as EnvVar,
        EnvVarSource as EnvVarSource,
        ExecAction as ExecAction,
        FieldSelector as FieldSelector,
        HttpGetAction as HttpGetAction,
        HttpHeader as HttpHeader,
        KeySelector as KeySelector,
        Lifecycle as Lifecycle,
        LifecycleHandler as LifecycleHandler,
        Probe as Probe,
        ResourceFieldSelector as ResourceFieldSelector,
        ResourceRequirements as ResourceRequirements,
        SecretEnvSource as SecretEnvSource,
        SecurityContext as SecurityContext,
        TcpSocketAction as TcpSocketAction,
        VolumeMount as VolumeMount,
    )
    from kaito.runtime.kinds.coordination import (
        Lease as Lease,
        LeaseSpec as LeaseSpec,
    )
    from kaito.runtime.kinds.core import (
        LoadBalancerIngress as LoadBalancerIngress,
        LoadBalancerStatus as LoadBalancerStatus,
        Namespace as Namespace,
        NamespaceCondition as NamespaceCondition,
        NamespaceSpec as NamespaceSpec,
        NamespaceStatus as NamespaceStatus,
        Node as Node,
        NodeAddress as NodeAddress,
        NodeCondition as NodeCondition,
        NodeSpec as NodeSpec,
        NodeStatus as NodeStatus,
        NodeSystemInfo as NodeSystemInfo,
        PersistentVolume as PersistentVolume,
        PersistentVolumeClaim as PersistentVolumeClaim,
        PersistentVolumeClaimCondition as PersistentVolumeClaimCondition,
        PersistentVolumeClaimStatus as PersistentVolumeClaimStatus,
        PersistentVolumeSpec as PersistentVolumeSpec,
        PersistentVolumeStatus as PersistentVolumeStatus,
        Service as Service,
        ServiceAccount as ServiceAccount,
        ServicePort as ServicePort,
        ServiceSpec as ServiceSpec,
        ServiceStatus as ServiceStatus,
        Taint as Taint,
        VolumeNodeAffinity as VolumeNodeAffinity,
    )
    from kaito.runtime.kinds.discovery import (
        Endpoint as Endpoint,
        EndpointConditions as EndpointConditions,
        EndpointPort as EndpointPort,
        EndpointSlice as EndpointSlice,
    )
    from kaito.runtime.kinds.events import (
        Event as Event,
        EventSeries as EventSeries,
    )
    from kaito.runtime.kinds.networking import (
        HttpIngressPath as HttpIngressPath,
        HttpIngressRuleValue as HttpIngressRuleValue,
        Ingress as Ingress,
        IngressBackend as IngressBackend,
        IngressRule as IngressRule,
        IngressServiceBackend as IngressServiceBackend,
        IngressSpec as IngressSpec,
        IngressStatus as IngressStatus,
        IngressTls as IngressTls,
        IpBlock as IpBlock,
        NetworkPolicy as NetworkPolicy,
        NetworkPolicyEgressRule as NetworkPolicyEgressRule,
        NetworkPolicyIngressRule as NetworkPolicyIngressRule,
        NetworkPolicyPeer as NetworkPolicyPeer,
        NetworkPolicyPort as NetworkPolicyPort,
        NetworkPolicySpec as NetworkPolicySpec,
        ServiceBackendPort as ServiceBackendPort,
    )
    from kaito.runtime.kinds.pod import (
        Affinity as Affinity,
        ConfigMapVolumeSource as ConfigMapVolumeSource,
        ContainerState as ContainerState,
        ContainerStateRunning as ContainerStateRunning,
        ContainerStateTerminated as ContainerStateTerminated,
        ContainerStateWaiting as ContainerStateWaiting,
        ContainerStatus as ContainerStatus,
        CsiVolumeSource as CsiVolumeSource,
        EmptyDirVolumeSource as EmptyDirVolumeSource,
        EphemeralVolumeSource as EphemeralVolumeSource,
        HostPathVolumeSource as HostPathVolumeSource,
        KeyToPath as KeyToPath,
        NodeAffinity as NodeAffinity,
        NodeSelector as NodeSelector,
        NodeSelectorRequirement as NodeSelectorRequirement,
        NodeSelectorTerm as NodeSelectorTerm,
        PersistentVolumeClaimSpec as PersistentVolumeClaimSpec,
        PersistentVolumeClaimTemplate as PersistentVolumeClaimTemplate,
        PersistentVolumeClaimVolumeSource as PersistentVolumeClaimVolumeSource,
        Pod as Pod,
        PodAffinity as PodAffinity,
        PodAffinityTerm as PodAffinityTerm,
        PodCondition as PodCondition,
        PodIP as PodIP,
        PodSecurityContext as PodSecurityContext,
        PodSpec as PodSpec,
        PodStatus as PodStatus,
        PodTemplateSpec as PodTemplateSpec,
        PreferredSchedulingTerm as PreferredSchedulingTerm,
        SecretVolumeSource as SecretVolumeSource,
        Toleration as Toleration,
        TopologySpreadConstraint as TopologySpreadConstraint,
        Volume as Volume,
        VolumeResourceRequirements as VolumeResourceRequirements,
        WeightedPodAffinityTerm as WeightedPodAffinityTerm,
    )
    from kaito.runtime.kinds.policy import (
        PodDisruptionBudget as PodDisruptionBudget,
        PodDisruptionBudgetSpec as PodDisruptionBudgetSpec,
        PodDisruptionBudgetStatus as PodDisruptionBudgetStatus,
    )
    from kaito.runtime.kinds.rbac import (
        ClusterRole as ClusterRole,
        ClusterRoleBinding as ClusterRoleBinding,
        PolicyRule as PolicyRule,
        Role as Role,
        RoleBinding as RoleBinding,
        RoleRef as RoleRef,
        Subject as Subject,
    )
    from kaito.runtime.kinds.references import (
        LocalObjectReference as LocalObjectReference,
        ObjectReference as ObjectReference,
    )
    from kaito.runtime.kinds.storage import (
        StorageClass as StorageClass,
    )
    from kaito.runtime.kinds.structs import *  # noqa: F403 -- the list of names is generated
    from kaito.runtime.kinds.untyped import (
        Untyped as Untyped,
        untyped_kind as untyped_kind,
    )

_HOMES = {
    "admission": (
        "MatchCondition",
        "MutatingWebhook",
        "MutatingWebhookConfiguration",
        "RuleWithOperations",
        "ServiceReference",
        "ValidatingWebhook",
        "ValidatingWebhookConfiguration",
        "WebhookClientConfig",
    ),
    "apiextensions": (
        "CustomResourceConversion",
        "CustomResourceDefinition",
        "CustomResourceDefinitionCondition",
        "CustomResourceDefinitionNames",
        "CustomResourceDefinitionSpec",
        "CustomResourceDefinitionStatus",
        "CustomResourceDefinitionVersion",
        "WebhookConversion",
    ),
    "apps": (
        "ControllerRevision",
        "DaemonSet",
        "DaemonSetSpec",
        "DaemonSetStatus",
        "Deployment",
        "DeploymentSpec",
        "DeploymentStatus",
        "DeploymentStrategy",
        "RollingUpdateDeployment",
        "RollingUpdateStatefulSet",
        "StatefulSet",
        "StatefulSetRetentionPolicy",
        "StatefulSetSpec",
        "StatefulSetStatus",
        "StatefulSetUpdateStrategy",
        "WorkloadCondition",
    ),
    "authentication": ("TokenReview", "TokenReviewSpec", "TokenReviewStatus", "UserInfo"),
    "authorization": (
        "NonResourceAttributes",
        "ResourceAttributes",
        "SubjectAccessReview",
        "SubjectAccessReviewSpec",
        "SubjectAccessReviewStatus",
    ),
    "batch": (
        "CronJob",
        "CronJobSpec",
        "CronJobStatus",
        "Job",
        "JobSpec",
        "JobStatus",
        "JobTemplateSpec",
    ),
    "config": (
        "ConfigMap",
        "Secret",
    ),
    "containers": (
        "Capabilities",
        "ConfigMapEnvSource",
        "Container",
        "ContainerPort",
        "EnvFromSource",
        "EnvVar",
        "EnvVarSource",
        "ExecAction",
        "FieldSelector",
        "HttpGetAction",
        "HttpHeader",
        "KeySelector",
        "Lifecycle",
        "LifecycleHandler",
        "Probe",
        "ResourceFieldSelector",
        "ResourceRequirements",
        "SecretEnvSource",
        "SecurityContext",
        "TcpSocketAction",
        "VolumeMount",
    ),
    "coordination": (
        "Lease",
        "LeaseSpec",
    ),
    "core": (
        "LoadBalancerIngress",
        "LoadBalancerStatus",
        "Namespace",
        "NamespaceCondition",
        "NamespaceSpec",
        "NamespaceStatus",
        "Node",
        "NodeAddress",
        "NodeCondition",
        "NodeSpec",
        "NodeStatus",
        "NodeSystemInfo",
        "PersistentVolume",
        "PersistentVolumeClaim",
        "PersistentVolumeClaimCondition",
        "PersistentVolumeClaimStatus",
        "PersistentVolumeSpec",
        "PersistentVolumeStatus",
        "Service",
        "ServiceAccount",
        "ServicePort",
        "ServiceSpec",
        "ServiceStatus",
        "Taint",
        "VolumeNodeAffinity",
    ),
    "discovery": (
        "Endpoint",
        "EndpointConditions",
        "EndpointPort",
        "EndpointSlice",
    ),
    "events": (
        "Event",
        "EventSeries",
    ),
    "networking": (
        "HttpIngressPath",
        "HttpIngressRuleValue",
        "Ingress",
        "IngressBackend",
        "IngressRule",
        "IngressServiceBackend",
        "IngressSpec",
        "IngressStatus",
        "IngressTls",
        "IpBlock",
        "NetworkPolicy",
        "NetworkPolicyEgressRule",
        "NetworkPolicyIngressRule",
        "NetworkPolicyPeer",
        "NetworkPolicyPort",
        "NetworkPolicySpec",
        "ServiceBackendPort",
    ),
    "pod": (
        "Affinity",
        "ConfigMapVolumeSource",
        "ContainerState",
        "ContainerStateRunning",
        "ContainerStateTerminated",
        "ContainerStateWaiting",
        "ContainerStatus",
        "CsiVolumeSource",
        "EmptyDirVolumeSource",
        "EphemeralVolumeSource",
        "HostPathVolumeSource",
        "KeyToPath",
        "NodeAffinity",
        "NodeSelector",
        "NodeSelectorRequirement",
        "NodeSelectorTerm",
        "PersistentVolumeClaimSpec",
        "PersistentVolumeClaimTemplate",
        "PersistentVolumeClaimVolumeSource",
        "Pod",
        "PodAffinity",
        "PodAffinityTerm",
        "PodCondition",
        "PodIP",
        "PodSecurityContext",
        "PodSpec",
        "PodStatus",
        "PodTemplateSpec",
        "PreferredSchedulingTerm",
        "SecretVolumeSource",
        "Toleration",
        "TopologySpreadConstraint",
        "Volume",
        "VolumeResourceRequirements",
        "WeightedPodAffinityTerm",
    ),
    "policy": (
        "PodDisruptionBudget",
        "PodDisruptionBudgetSpec",
        "PodDisruptionBudgetStatus",
    ),
    "rbac": (
        "ClusterRole",
        "ClusterRoleBinding",
        "PolicyRule",
        "Role",
        "RoleBinding",
        "RoleRef",
        "Subject",
    ),
    "references": (
        "LocalObjectReference",
        "ObjectReference",
    ),
    "storage": ("StorageClass",),
    "untyped": (
        "Untyped",
        "untyped_kind",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

HANDWRITTEN: tuple[str, ...] = (*_HOME_OF,)
"""Names that are not generated."""

_HOME_OF.update(dict.fromkeys(MODULE_OF, "structs"))

__all__ = [*_HOME_OF]  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll] -- checkers read the imports


def __getattr__(name: str) -> Any:
    """Loads a name from its module."""
    return load(__name__, name, _HOME_OF)


def __dir__() -> list[str]:
    return sorted(_HOME_OF)
