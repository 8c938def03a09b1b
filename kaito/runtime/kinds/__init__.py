"""Narrow models of the built-in kinds: the fields operators use; all others survive as unknown fields.

Reading never needs a None check for a struct (`pod.status.phase`), and writing emits only what was set.
"""

from kaito.runtime.kinds.admission import (
    MutatingWebhookConfiguration as MutatingWebhookConfiguration,
    ValidatingWebhookConfiguration as ValidatingWebhookConfiguration,
)
from kaito.runtime.kinds.apiextensions import CustomResourceDefinition as CustomResourceDefinition
from kaito.runtime.kinds.apps import (
    ControllerRevision as ControllerRevision,
    DaemonSet as DaemonSet,
    Deployment as Deployment,
    DeploymentSpec as DeploymentSpec,
    StatefulSet as StatefulSet,
    StatefulSetSpec as StatefulSetSpec,
)
from kaito.runtime.kinds.batch import Job as Job, JobSpec as JobSpec
from kaito.runtime.kinds.coordination import Lease as Lease, LeaseSpec as LeaseSpec
from kaito.runtime.kinds.core import (
    ConfigMap as ConfigMap,
    Namespace as Namespace,
    Node as Node,
    ObjectReference as ObjectReference,
    PersistentVolume as PersistentVolume,
    PersistentVolumeClaim as PersistentVolumeClaim,
    Secret as Secret,
    Service as Service,
    ServiceAccount as ServiceAccount,
    ServicePort as ServicePort,
    ServiceSpec as ServiceSpec,
    Taint as Taint,
)
from kaito.runtime.kinds.events import Event as Event
from kaito.runtime.kinds.pod import (
    Container as Container,
    EnvVar as EnvVar,
    Pod as Pod,
    PodSpec as PodSpec,
    PodTemplateSpec as PodTemplateSpec,
    Probe as Probe,
    Toleration as Toleration,
    Volume as Volume,
    VolumeMount as VolumeMount,
)
from kaito.runtime.kinds.storage import StorageClass as StorageClass
from kaito.runtime.kinds.untyped import Untyped as Untyped, untyped_kind as untyped_kind
