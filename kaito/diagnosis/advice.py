"""What happens next, and what the user can do, by reason.

Every reason of a condition of a Workspace or a claim has an entry (`test_advice` checks it). A line that begins with
`$ ` is a command. The names in braces are those of `Names`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final, final

from kaito.api import conditions as ws
from kaito.api.karpenter import conditions as claim
from kaito.diagnosis import result


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Names for commands; a name that is unknown is an upper-case placeholder."""

    namespace: str
    name: str
    object: str
    """Name of the object that has the cause."""
    resource: str = "machine"
    """`machine` or `nodeclaim`."""
    claim: str = "NAME"
    node: str = "NODE"
    pod: str = "POD"
    instance_type: str = "TYPE"
    region: str = "REGION"


@final
@dataclass(frozen=True, slots=True)
class Advice:
    """What follows from a reason."""

    do: Sequence[str] = ()
    next: str = ""
    """What happens without the user; the time is added where one is recorded."""
    progress: bool = False
    """Whether the reason is a normal part of a start or of a deletion."""

    def lines(self, names: Names) -> tuple[str, ...]:
        """Returns the advice with the names of the objects; a command after a text is a line of its own."""
        values = asdict(names)
        lines = [line.format_map(values).partition(": $ ") for line in self.do]
        return tuple(part for text, mark, command in lines for part in (text, f"$ {command}" if mark else "") if part)


_EDIT: Final = "nothing, until the Workspace is changed"
_RETRY: Final = "the workspace-controller tries again with growing delays"
_LAUNCH: Final = "the provisioner tries again with growing delays"
_RETRY_NOW: Final = "$ kubectl annotate {resource} {claim} kaito.sh/retry-launch=now   # then tries at once"
_CONTROLLER_LOG: Final = "$ kubectl -n kaito-system logs -l app.kubernetes.io/name=workspace-controller --tail=50"
_PROVISIONER_LOG: Final = "$ kubectl -n kaito-system logs -l app.kubernetes.io/name=gpu-provisioner --tail=100"
_DESCRIBE_NODE: Final = "$ kubectl describe node {node}"
_DESCRIBE_CLAIM: Final = "$ kubectl describe {resource} {claim}"
_DESCRIBE_POD: Final = "$ kubectl -n {namespace} describe pod {pod}"
_PREVIOUS_LOG: Final = "$ kubectl -n {namespace} logs {pod} --previous --all-containers"
_WAIT_POOL: Final = Advice(
    next="the provisioner polls the cloud; an agent pool takes about four minutes, one with eight GPUs up to half an "
    "hour",
    progress=True,
)

_PLANNING: Final[Mapping[str, Advice]] = {
    ws.UNKNOWN_PRESET: Advice(("set inference.preset.name to one of the names in the message",), _EDIT),
    ws.UNKNOWN_INSTANCE_TYPE: Advice(("choose an instance type of the message in a new Workspace",), _EDIT),
    ws.INSTANCE_TYPE_TOO_SMALL: Advice(
        (
            "create the Workspace with the instance type that the message names",
            (
                "if the estimate is wrong for you: $ kubectl -n {namespace} annotate workspace {name} "
                "kaito.sh/bypass-resource-checks=true"
            ),
        ),
        _EDIT,
    ),
    ws.INVALID_SPEC: Advice(("correct the fields in the message",), _EDIT),
    ws.CONFIG_NOT_FOUND: Advice(
        (
            "create the ConfigMap with the key inference_config.yaml or training_config.yaml",
            "$ kubectl -n {namespace} get configmaps",
        ),
        "the Workspace is planned at once when the ConfigMap changes",
    ),
    ws.CONFIG_INVALID: Advice(
        ("correct the key and line in the message",), "the Workspace is planned at once when the ConfigMap changes"
    ),
    ws.SECRET_NOT_FOUND: Advice(
        ("create the Secret that the message names", "$ kubectl -n {namespace} get secrets"),
        "the workspace-controller looks for the Secret every 10 s",
    ),
    ws.SECRET_INVALID: Advice(
        (
            (
                "correct the Secret: registries need the type kubernetes.io/dockerconfigjson, tokens of Hugging Face "
                "the key HF_TOKEN"
            ),
        ),
        "the workspace-controller reads the Secret every 10 s",
    ),
    ws.MODEL_PENDING: Advice(next="the workspace-controller reads the model, which takes seconds", progress=True),
    ws.MODEL_UNREACHABLE: Advice(
        (
            "check network, proxy and the flag --hub-endpoint of the workspace-controller",
            "without a network: give the facts in presetOptions.modelFacts",
        ),
        "the model is read again after 5 s, and then with growing delays up to 10 min",
    ),
    ws.MODEL_NOT_FOUND: Advice(
        (
            "check the spelling of the model and its revision",
            "for a private model: set presetOptions.modelAccessSecret",
        ),
        "the model is read again within 5 min",
    ),
    ws.MODEL_GATED: Advice(
        (
            "accept the license on the page of the model, with the account of the token",
            (
                "$ kubectl -n {namespace} create secret generic hf --from-literal=HF_TOKEN=TOKEN, and set "
                "presetOptions.modelAccessSecret: hf"
            ),
        ),
        "the model is read again within 5 min, and at once with another token",
    ),
    ws.MODEL_INVALID: Advice(("choose another repository or revision; the message names what is wrong",), _EDIT),
    ws.MODEL_WITHOUT_SAFETENSORS: Advice(("choose a repository with safetensors, or convert the model",), _EDIT),
    ws.MODEL_UNSUPPORTED: Advice(("choose another model, or serve it with inference.template",), _EDIT),
    ws.MODEL_NEEDS_REMOTE_CODE: Advice(
        ("read the code of the repository, and set presetOptions.trustRemoteCode: true",), _EDIT
    ),
    ws.WORKLOAD_REFUSED: Advice(
        ("correct the field in the message, usually of inference.template",),
        "the workspace-controller tries again every 10 s",
    ),
    ws.NAME_CONFLICT: Advice(
        ("delete the object in the message, or give the Workspace another name",),
        "the workspace-controller continues when the object is deleted",
    ),
    ws.RECONCILE_ERROR: Advice((_CONTROLLER_LOG,), _RETRY),
}

_CLAIMS: Final[Mapping[str, Advice]] = {
    ws.CLAIM_CREATE_FAILED: Advice(("remove what the message names as the obstacle",), _RETRY),
    ws.CLAIM_KIND_MISSING: Advice(
        (
            "install the kind: $ kubectl apply --server-side -k config/crd",
            "or set --node-api of the workspace-controller",
        ),
        _RETRY,
    ),
    ws.NODE_CLASS_KIND_MISSING: Advice(
        ("install the provider of Karpenter, or correct the annotation kaito.sh/node-class",), _RETRY
    ),
    ws.NODE_CLASS_NOT_FOUND: Advice(("create the node class, or name another one with kaito.sh/node-class",), _RETRY),
    ws.NODE_CLASS_NOT_READY: Advice(("$ kubectl describe the node class: its conditions have the cause",), _RETRY),
    ws.NODE_POOL_IGNORED: Advice(
        (
            "run Karpenter with the feature gate StaticCapacity=true",
            "$ kubectl describe nodepools -l kaito.sh/workspace={name}",
        ),
        _RETRY,
    ),
    ws.NODE_POOL_NOT_READY: Advice(("remove what the conditions of the NodePool name as the obstacle",), _RETRY),
    ws.NODE_POOL_REFUSED: Advice(("remove what the message names as the obstacle",), _RETRY),
    ws.CLAIM_REPLACEMENT_PENDING: Advice(
        ("the message contains why the claim was lost; nothing to do if it was an eviction or a deletion by hand",),
        "the workspace-controller creates the next claim",
    ),
    ws.INSTANCE_TYPE_REFUSED: Advice(
        next="the claims are deleted, and the next instance type of resource.instanceTypes is used", progress=True
    ),
    ws.ALTERNATIVES_EXHAUSTED: Advice(
        ("add an instance type to resource.instanceTypes, request quota, or allow other zones or spot nodes",),
        "the workspace-controller tries the instance types again with growing delays",
    ),
    ws.PROVISION_TIMEOUT: Advice(
        ("$ kubectl -n kaito-system get pods   # a provisioner must run", _PROVISIONER_LOG),
        "the workspace-controller creates the next claim",
    ),
    ws.BUDGET_EXCEEDED: Advice(
        (
            "raise resource.maxHourlyCost or the budget of the namespace, or request fewer or cheaper nodes",
            "$ kaito cost -n {namespace}",
        ),
        "no node is bought until the cost is below the limit",
    ),
    ws.NODES_RELEASED: Advice(next="the provisioner deletes the instances", progress=True),
    ws.CLAIMS_PENDING: Advice(next="the workspace-controller creates the claims", progress=True),
    ws.CLAIM_NOT_READY: Advice((_DESCRIBE_CLAIM,), "the provisioner continues", progress=True),
    ws.MACHINE_NOT_READY: Advice((_DESCRIBE_CLAIM,), "the provisioner continues", progress=True),
    claim.LAUNCH_FAILED: Advice((_DESCRIBE_CLAIM, _PROVISIONER_LOG), _LAUNCH),
    claim.INSUFFICIENT_CAPACITY: Advice(
        ("choose another instance type or region in a new Workspace, or wait", _RETRY_NOW), _LAUNCH
    ),
    claim.QUOTA_EXCEEDED: Advice(
        (
            "request quota for the family of {instance_type}: $ az vm list-usage --location {region} -o table",
            "or create the Workspace with an instance type of a family that has quota",
            _RETRY_NOW,
        ),
        _LAUNCH,
    ),
    claim.UNSUPPORTED_INSTANCE_TYPE: Advice(
        (
            (
                "choose a type that the region offers: $ az vm list-skus --location {region} --size {instance_type} "
                "-o table"
            ),
            "or, if the message names a zone, change resource.zones",
        ),
        _LAUNCH,
    ),
    claim.UNAUTHORIZED: Advice(
        (
            "give the identity of gpu-provisioner the role in the message, or correct its federated credential",
            _RETRY_NOW,
        ),
        _LAUNCH,
    ),
    claim.INVALID_CLAIM: Advice((_DESCRIBE_CLAIM,), "nothing, until the claim is changed"),
    claim.CLUSTER_NOT_FOUND: Advice(
        (
            (
                "correct ARM_SUBSCRIPTION_ID, ARM_RESOURCE_GROUP and AZURE_CLUSTER_NAME in the ConfigMap "
                "gpu-provisioner-azure"
            ),
        ),
        _LAUNCH,
    ),
    claim.BLOCKED_BY_CLOUD: Advice(
        ("remove the lock, the policy or the full subnet in the message", _RETRY_NOW), _LAUNCH
    ),
    claim.AGENT_POOL_NAME_CONFLICT: Advice(
        ("delete or rename the agent pool {claim}, which has another owner",), "the provisioner looks again every 5 min"
    ),
    claim.AGENT_POOL_CREATING: _WAIT_POOL,
    claim.AGENT_POOL_DELETING: Advice(
        next="the provisioner waits until the former agent pool is deleted", progress=True
    ),
    claim.NOT_LAUNCHED: _WAIT_POOL,
    claim.RECONCILING_DEPENDENTS: _WAIT_POOL,
    claim.AWAITING_RECONCILIATION: Advice(next="the provisioner processes the claim", progress=True),
    claim.CLOUD_THROTTLED: Advice(next="the provisioner waits as long as the cloud requests", progress=True),
    claim.CLOUD_BUSY: Advice(next="the provisioner tries again within 2 min", progress=True),
    claim.CLOUD_CONFLICT: Advice((_DESCRIBE_CLAIM,), _LAUNCH),
    claim.CLOUD_UNAVAILABLE: Advice(("check the status page of the cloud if it lasts",), _LAUNCH),
    claim.OPERATION_CANCELED: Advice(next=_LAUNCH, progress=True),
    claim.LAUNCH_TIMEOUT: Advice((_PROVISIONER_LOG,), "the claim is replaced"),
    claim.REGISTRATION_TIMEOUT: Advice(
        ("look at the boot diagnostics of the instance, and at the network rules of its subnet",),
        "the claim is replaced",
    ),
    claim.NODE_NOT_FOUND: Advice(
        ("if it lasts: the boot diagnostics of the instance, and the network rules of its subnet",),
        "the node joins within minutes",
        progress=True,
    ),
    claim.PROVIDER_ID_MISSING: Advice(
        (_DESCRIBE_NODE,), "the cloud's node manager sets the provider ID", progress=True
    ),
    claim.PROVIDER_ID_MISMATCH: Advice(
        ("$ kubectl get nodes -o custom-columns=NAME:.metadata.name,ID:.spec.providerID",),
        "the provisioner waits for the node of the instance",
    ),
    claim.MULTIPLE_NODES_FOUND: Advice(
        ("delete the node that is not the instance: $ kubectl get nodes -o wide",),
        "the provisioner waits until one node remains",
    ),
    claim.INITIALIZATION_TIMEOUT: Advice(
        ("install the device plugin; it must tolerate sku=gpu:NoSchedule", _DESCRIBE_NODE), "the claim is replaced"
    ),
    claim.RESOURCE_NOT_REGISTERED: Advice(
        ("if it lasts: install the device plugin; it must tolerate sku=gpu:NoSchedule", _DESCRIBE_NODE),
        "the device plugin starts and advertises the GPUs",
        progress=True,
    ),
    claim.STARTUP_TAINTS_EXIST: Advice((_DESCRIBE_NODE,), "another component removes the taint", progress=True),
    claim.EPHEMERAL_TAINTS_EXIST: Advice((_DESCRIBE_NODE,), "Kubernetes removes the taint", progress=True),
    claim.UNHEALTHY_DEPENDENTS: Advice((_DESCRIBE_CLAIM,), _LAUNCH),
    claim.DRAINING: Advice(
        ("if it lasts, a PodDisruptionBudget holds pods: $ kubectl get poddisruptionbudgets -A",),
        "the node is drained",
        progress=True,
    ),
    claim.AWAITING_VOLUME_DETACHMENT: Advice(
        ("$ kubectl get volumeattachments",), "volumes are detached from the node", progress=True
    ),
    claim.TERMINATION_GRACE_PERIOD_ELAPSED: Advice(next="the termination continues", progress=True),
    claim.TERMINATING: Advice(next="the provisioner deletes the instance", progress=True),
    claim.DELETION_FAILED: Advice(
        ("remove what the message names; the instance still costs money", _PROVISIONER_LOG),
        "the deletion is repeated with growing delays",
    ),
}

_NODES: Final[Mapping[str, Advice]] = {
    ws.NODE_NOT_READY: Advice((_DESCRIBE_NODE,), "the Workspace continues when the node is usable"),
    ws.NODE_PLUGINS_NOT_READY: Advice(
        (
            "install the device plugin; it must tolerate sku=gpu:NoSchedule",
            "$ kubectl get node {node} -o jsonpath='{{.status.capacity}}'",
        ),
        "the Workspace continues when the node advertises its GPUs",
    ),
    ws.RESOURCES_NOT_READY: Advice(("$ kubectl get machines,nodeclaims,nodes",), "nodes are awaited", progress=True),
    ws.NODE_DISK_PRESSURE: Advice(
        (_DESCRIBE_NODE, "use an instance type with a larger disk, or weights that are not downloaded to the node"),
        "the pod is created again",
    ),
    ws.NODE_MEMORY_PRESSURE: Advice((_DESCRIBE_NODE, "use a larger instance type"), "the pod is created again"),
}

_PODS: Final[Mapping[str, Advice]] = {
    ws.WAITING_FOR_RESOURCES: Advice(next="pods are created when the nodes are ready", progress=True),
    ws.INFERENCE_PENDING: Advice(
        ("$ kubectl -n {namespace} logs {pod} --follow",), "the server loads the model", progress=True
    ),
    ws.PULLING_WEIGHTS: Advice(next="the model is loaded when the weights are complete", progress=True),
    ws.DOWNLOADING_WEIGHTS: Advice(
        ("weights as an OCI artifact arrive faster: see the guide Model images",),
        "the model is loaded when the weights are complete",
        progress=True,
    ),
    ws.LOADING_MODEL: Advice(next="the server answers when the model is loaded", progress=True),
    ws.WARMING_UP: Advice(next="the server answers after its kernels are compiled", progress=True),
    ws.IMAGE_PULL_ERROR: Advice(
        (
            "check that the image in the message exists, and IMAGE_REGISTRY of the workspace-controller",
            "for a private registry: attach it to the cluster, or set podOptions.imagePullSecrets",
            _DESCRIBE_POD,
        ),
        "the kubelet tries again with growing delays up to 5 min",
    ),
    ws.POD_CREATION_FAILED: Advice(
        ("allow the pod: the message names the policy, quota, LimitRange or webhook",),
        "Kubernetes tries to create the pod again with growing delays",
    ),
    ws.CONTAINER_START_ERROR: Advice((_DESCRIBE_POD,), "the kubelet tries again with growing delays"),
    ws.CONTAINER_OOM_KILLED: Advice(
        (
            "lower max-model-len in the ConfigMap of inference.config, or raise podOptions.resources",
            "or create the Workspace with a larger instance type",
            _PREVIOUS_LOG,
        ),
        "the kubelet restarts the container with growing delays up to 5 min",
    ),
    ws.CONTAINER_CRASH_LOOP: Advice(
        (_PREVIOUS_LOG,), "the kubelet restarts the container with growing delays up to 5 min"
    ),
    ws.POD_EVICTED: Advice((_DESCRIBE_POD, _DESCRIBE_NODE), "the pod is created again"),
    ws.POD_FAILED: Advice((_DESCRIBE_POD,), "the pod is created again"),
    ws.UNSCHEDULABLE: Advice(
        ("compare the message with the node: $ kubectl describe node {node}", _DESCRIBE_POD),
        "the scheduler tries again when a node or a pod changes",
    ),
    ws.SCALED_TO_ZERO: Advice(
        ("$ kubectl -n {namespace} scale workspace {name} --replicas=1",), "nothing, until the Workspace is scaled up"
    ),
    ws.ADAPTERS_LOADING: Advice(next="the kubelet updates the list of adapters within about a minute", progress=True),
    ws.ADAPTER_FAILED: Advice(
        ("correct the adapter in the message; the base model and the other adapters are served",),
        "the adapter is tried again",
    ),
    ws.JOB_PENDING: Advice(
        ("$ kubectl -n {namespace} logs -l kaito.sh/workspace={name} --follow",),
        "the Job starts its pod",
        progress=True,
    ),
    ws.JOB_RUNNING: Advice(
        ("$ kubectl -n {namespace} logs -l kaito.sh/workspace={name} --follow",), "tuning continues", progress=True
    ),
    ws.JOB_FAILED: Advice(
        (
            (
                "the exit code and the last line are in the message: correct the cause, and change the Workspace or "
                "create it again"
            ),
            "$ kubectl -n {namespace} logs -l kaito.sh/workspace={name} --tail=100",
        ),
        "nothing: a run is not repeated",
    ),
    ws.FAILED: Advice(
        ("$ kubectl -n {namespace} logs -l kaito.sh/workspace={name} --tail=100",), "nothing: a run is not repeated"
    ),
    ws.PENDING: Advice(next="the workspace-controller continues", progress=True),
}

_DELETION: Final[Mapping[str, Advice]] = {
    ws.DELETING: Advice(next="the workspace-controller deletes workload and claims", progress=True),
    ws.WAITING_FOR_CLAIMS: Advice((_DESCRIBE_CLAIM,), "the provisioner deletes the instances", progress=True),
    ws.DELETION_FAILED: Advice(("remove what the message names",), "the deletion is repeated with growing delays"),
    ws.CLOUD_REFUSES_DELETION: Advice(
        ("remove the lock, or add the permission in the message; the instance still costs money",),
        "the provisioner repeats the deletion",
    ),
}

_OWN: Final[Mapping[str, Advice]] = {
    result.CONTROLLER_NOT_RUNNING: Advice(
        ("$ kubectl -n kaito-system get pods,deployments", _CONTROLLER_LOG),
        "nothing, until the workspace-controller runs",
    ),
    result.NO_PROVISIONER: Advice(
        (
            "$ kubectl -n kaito-system get pods",
            "--node-api of the workspace-controller and of gpu-provisioner must agree: the claims are {resource}s",
            _PROVISIONER_LOG,
        ),
        "nothing, until a provisioner processes the claim",
    ),
    result.NAMESPACE_TERMINATING: Advice(
        ("create the Workspace in another namespace", "$ kubectl get namespace {namespace} -o yaml   # conditions"),
        "the namespace and everything in it is deleted",
    ),
    result.FOREIGN_FINALIZER: Advice(
        (
            "start the controller that owns the finalizer, or remove the finalizer if there is none any more:",
            "$ kubectl -n {namespace} edit workspace {name}   # metadata.finalizers",
        ),
        "nothing, until the finalizer is removed",
    ),
    result.PROBE_FAILING: Advice(
        ("$ kubectl -n {namespace} logs {pod} --tail=50", _DESCRIBE_POD), "the kubelet repeats the probe"
    ),
    result.SERVICE_MISSING: Advice((_CONTROLLER_LOG,), "the workspace-controller creates the Service"),
    result.LOAD_BALANCER_PENDING: Advice(
        ("$ kubectl -n {namespace} describe service {name}",), "the cloud assigns an address"
    ),
    result.POD_PENDING: Advice(
        (_DESCRIBE_POD,), "the kubelet pulls the images and starts the containers", progress=True
    ),
}

PLANNING_REASONS: Final = frozenset(_PLANNING) - {ws.RECONCILE_ERROR}
"""Reasons for which a Workspace has no plan, so that no node is bought."""

ADVICE: Final[Mapping[str, Advice]] = {**_PLANNING, **_CLAIMS, **_NODES, **_PODS, **_DELETION, **_OWN}
"""Advice by reason."""

_MESSAGES: Final = (
    (re.compile(r'failed calling webhook "([^"]+)"'), "the webhook {0} does not answer: start the pods of its Service"),
    (re.compile(r"because it is being terminated"), "the namespace is being deleted: use another one"),
    (
        re.compile(r"can't open file '/workspace/vllm/inference_api.py'"),
        "the image contains the other runtime: set the annotation kaito.sh/runtime",
    ),
    (
        re.compile(r"CUDA out of memory|OutOfMemoryError|No available memory for the cache blocks"),
        "lower max-model-len or gpu-memory-utilization in the ConfigMap of inference.config, or choose a larger type",
    ),
    (
        re.compile(r"huggingface\.co\S* .*\b40[13]\b|\b40[13]\b.*huggingface\.co|gated repo", re.IGNORECASE),
        "accept the license on Hugging Face, and check presetOptions.modelAccessSecret",
    ),
    (
        re.compile(r"no match for platform|exec format error", re.IGNORECASE),
        "the image is for another processor architecture",
    ),
    (
        re.compile(r"didn't match Pod's node affinity|untolerated taint", re.IGNORECASE),
        "labels or taints of the node differ from what the Workspace expects",
    ),
)
"""Advice by message, for causes that a reason alone does not name."""

_ALIASES: Final = (
    (re.compile(r"quota", re.IGNORECASE), claim.QUOTA_EXCEEDED),
    (
        re.compile(r"AllocationFailed|Overconstrained|SkuNotAvailable|insufficient capacity", re.IGNORECASE),
        claim.INSUFFICIENT_CAPACITY,
    ),
    (re.compile(r"AuthorizationFailed|Unauthorized|does not have authorization", re.IGNORECASE), claim.UNAUTHORIZED),
    (re.compile(r"ScopeLocked|RequestDisallowedByPolicy|SubnetIsFull", re.IGNORECASE), claim.BLOCKED_BY_CLOUD),
    (
        re.compile(r"not supported in (?:the )?(?:location|region|subscription)", re.IGNORECASE),
        claim.UNSUPPORTED_INSTANCE_TYPE,
    ),
)
"""Reasons that a message names, for provisioners that report every failure with one reason."""

_GENERIC: Final = Advice(("$ kubectl -n {namespace} describe workspace {name}",), "the controller tries again")


def specific_reason(reason: str, message: str) -> str:
    """Returns the reason that a message of the cloud names, if the condition has a general one or one of upstream."""
    if reason in ADVICE and reason not in {claim.LAUNCH_FAILED, ws.PROVISION_TIMEOUT, ws.CLAIM_REPLACEMENT_PENDING}:
        return reason
    return next((found for pattern, found in _ALIASES if pattern.search(message)), reason)


def find_advice(reason: str, message: str, names: Names) -> tuple[Advice, tuple[str, ...]]:
    """Returns the advice for a cause, and its lines: those for the message come first."""
    advice = ADVICE.get(specific_reason(reason, message), _GENERIC)
    found = [(pattern.search(message), line) for pattern, line in _MESSAGES]
    lines = [line.format(*match.groups()) for match, line in found if match is not None]
    return advice, (*lines, *advice.lines(names))
