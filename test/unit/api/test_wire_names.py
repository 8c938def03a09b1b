"""Names that clusters store and other programs read: a label, an annotation, a condition, a reason.

Objects in a cluster keep the old name when a constant changes, and dashboards, scripts, upstream Kaito and Karpenter go
on with it. A name that is missing here is a change of the API and needs a migration.
"""

from types import ModuleType

import pytest

from kaito.api import conditions, labels
from kaito.api.karpenter import conditions as claim_conditions

LABELS_AND_ANNOTATIONS = """
    accelerator
    address
    agentpool
    amd.com/gpu
    aws.amazon.com/neuron
    default
    endpointslice.kubernetes.io/managed-by
    gpu
    gpu-provisioner
    inferenceset.finalizer.kaito.sh
    inferenceset.kaito.sh/created-by
    inferenceset.kaito.sh/finalizer
    inferenceset.kaito.sh/revision
    kaito
    kaito.sh/alternatives
    kaito.sh/activator
    kaito.sh/activator-since
    kaito.sh/applied
    kaito.sh/arm-operation
    kaito.sh/bypass-resource-checks
    kaito.sh/claim
    kaito.sh/claim-index
    kaito.sh/claim-kind
    kaito.sh/claim-uid
    kaito.sh/config-hash
    kaito.sh/creation-timestamp
    kaito.sh/disable-benchmark
    kaito.sh/enablelb
    kaito.sh/gpu-instance-profile
    kaito.sh/group-hash
    kaito.sh/group-role
    kaito.sh/hourly-budget
    kaito.sh/inputs-hash
    kaito.sh/installation
    kaito.sh/launch-record
    kaito.sh/launch-started
    kaito.sh/machine-type
    kaito.sh/managed-by
    kaito.sh/model-mirror-storage-class
    kaito.sh/model-streaming
    kaito.sh/node-class
    kaito.sh/node-class-name
    kaito.sh/node-count-override
    kaito.sh/node-image-family
    kaito.sh/performance-mode
    kaito.sh/preferred-node
    kaito.sh/provision-attempts
    kaito.sh/ragengine
    kaito.sh/ragenginenamespace
    kaito.sh/replan
    kaito.sh/reservation
    kaito.sh/retry-launch
    kaito.sh/runtime
    kaito.sh/streaming-service-account
    kaito.sh/template-hash
    kaito.sh/trace-environment
    kaito.sh/traceparent
    kaito.sh/upgrade-to
    kaito.sh/use-local-weights
    kaito.sh/weights
    kaito.sh/workspace
    kaito.sh/workspace-uid
    kaito.sh/workspacenamespace
    karpenter.azure.com/sku-name
    karpenter.kaito.sh/inferenceset
    karpenter.kaito.sh/inferenceset-namespace
    karpenter.kaito.sh/workspace-name
    karpenter.kaito.sh/workspace-namespace
    karpenter.sh/capacity-type
    karpenter.sh/disrupted
    karpenter.sh/do-not-disrupt
    karpenter.sh/do-not-sync-taints
    karpenter.sh/initialized
    karpenter.sh/nodeclaim-termination-timestamp
    karpenter.sh/nodepool
    karpenter.sh/provisioner-name
    karpenter.sh/registered
    karpenter.sh/termination
    karpenter.sh/unregistered
    kubernetes.azure.com/agentpool
    kubernetes.io/arch
    kubernetes.io/hostname
    kubernetes.io/os
    kubernetes.io/service-name
    leader
    node.kubernetes.io/exclude-from-external-load-balancers
    node.kubernetes.io/instance-type
    nvidia
    nvidia.com/cuda.compute.major
    nvidia.com/cuda.compute.minor
    nvidia.com/gpu
    nvidia.com/gpu.count
    nvidia.com/gpu.memory
    nvidia.com/gpu.product
    nvidia.com/gpu.replicas
    sku
    topology.kubernetes.io/region
    topology.kubernetes.io/zone
    true
    worker
    workspace
    workspace.finalizer.kaito.sh
    workspace.kaito.io/revision
    workspace.kaito.sh/finalizer
"""

WORKSPACE_CONDITIONS_AND_REASONS = """
    AdapterFailed
    AdaptersLoaded
    AdaptersLoading
    AdaptersReady
    AlternativesExhausted
    BudgetExceeded
    ClaimKindNotInstalled
    ClaimsPending
    CloudRefusesDeletion
    ConfigInvalid
    ConfigNotFound
    ContainerCrashLoopBackOff
    ContainerOOMKilled
    ContainerStartError
    DeletionFailed
    DownloadingWeights
    EndpointPickerNotFound
    GatewayKindNotInstalled
    HubUnreachable
    ImagePullError
    InferenceReady
    InferenceSetDeleting
    InferenceSetNotReady
    InferenceSetReady
    InferenceSetRouted
    InferenceSetUpdated
    InstanceTypeRefused
    InstanceTypeTooSmall
    InvalidSpec
    JobStarted
    LoadingModel
    MachineNotReady
    MachineReady
    MachinesReady
    ModelGated
    ModelInvalid
    ModelNotFound
    ModelResolved
    NameConflict
    NoSafetensors
    NodeClaimCreateFailed
    NodeClaimNotReady
    NodeClaimReady
    NodeClaimsReady
    NodeClassKindNotInstalled
    NodeClassNotFound
    NodeClassNotReady
    NodePoolIgnored
    NodePoolNotReady
    NodePoolRefused
    NodeDiskPressure
    NodeLimitReached
    NodeMemoryPressure
    NodeNotReady
    NodePluginsNotReady
    NodeProvisionTimeout
    NodesReady
    NodesReleased
    NotAccepted
    OnDelete
    PodCreationFailed
    PodEvicted
    PodFailed
    PullingWeights
    ReadingModel
    ReconcileError
    RemoteCodeRequired
    ReplacementPending
    ResourceReady
    ResourcesNotReady
    ResourcesReady
    ScaledToZero
    SecretInvalid
    SecretNotFound
    UnknownInstanceType
    UnknownPreset
    Unschedulable
    UnsupportedArchitecture
    Updating
    WaitingForClaims
    WaitingForResources
    WaitingForWorkspaces
    WarmingUp
    WorkloadRefused
    WorkspaceDeleting
    WorkspaceFailed
    WorkspaceInferenceStatusPending
    WorkspaceInferenceStatusSuccess
    WorkspacePending
    WorkspaceReady
    WorkspaceRefused
    WorkspaceSucceeded
    WorkspaceTuningJobStatusFailed
    WorkspaceTuningJobStatusPending
    WorkspaceTuningJobStatusStarted
"""

CLAIM_CONDITIONS_AND_REASONS = """
    AgentPoolCreating
    AgentPoolDeleting
    AgentPoolNameConflict
    AwaitingReconciliation
    AwaitingVolumeDetachment
    BlockedByCloud
    CloudBusy
    CloudConflict
    CloudThrottled
    CloudUnavailable
    ClusterNotFound
    DeletionFailed
    Drained
    Draining
    InitializationTimeout
    InstanceTerminating
    InsufficientCapacity
    InvalidClaim
    KnownEphemeralTaintsExist
    LaunchFailed
    LaunchTimeout
    MachineNotLaunched
    MultipleNodesFound
    NodeNotFound
    NodeNotReady
    Drifted
    NodeReady
    OperationCanceled
    ProviderIDMismatch
    ProviderIDMissing
    QuotaExceeded
    Ready
    ReconcilingDependents
    RegistrationTimeout
    ResourceNotRegistered
    StartupTaintsExist
    Terminating
    TerminationGracePeriodElapsed
    Unauthorized
    UnhealthyDependents
    UnsupportedInstanceType
    VolumesDetached
"""


def names_of(module: ModuleType) -> set[str]:
    return {value for name, value in vars(module).items() if name.isupper() and isinstance(value, str)}


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (labels, LABELS_AND_ANNOTATIONS),
        (conditions, WORKSPACE_CONDITIONS_AND_REASONS),
        (claim_conditions, CLAIM_CONDITIONS_AND_REASONS),
    ],
    ids=["labels", "workspace", "claim"],
)
def test_the_names_on_the_wire_stay(module: ModuleType, names: str) -> None:
    assert {name for name in names_of(module) if " " not in name} == set(names.split())


def test_readers_recognize_an_impossible_launch_by_its_message() -> None:
    assert claim_conditions.UNAVAILABLE_MESSAGE == "all requested instance types were unavailable during launch"


def test_the_stages_are_those_of_each_generation_of_karpenter() -> None:
    assert claim_conditions.NODE_CLAIM_STAGES == ("Launched", "Registered", "Initialized")
    assert claim_conditions.MACHINE_STAGES == ("MachineLaunched", "MachineRegistered", "MachineInitialized")


@pytest.mark.parametrize(
    ("reason", "terminal"),
    [
        ("InsufficientCapacity", True),
        ("QuotaExceeded", True),
        ("UnsupportedInstanceType", True),
        ("Unauthorized", True),
        ("InvalidClaim", True),
        ("BlockedByCloud", True),
        ("CloudThrottled", False),
        ("CloudBusy", False),
        ("CloudUnavailable", False),
        ("LaunchFailed", False),
        ("ClusterNotFound", False),
    ],
)
def test_a_launch_that_waiting_does_not_cure_is_terminal(reason: str, *, terminal: bool) -> None:
    assert (reason in claim_conditions.TERMINAL_LAUNCH_REASONS) is terminal


def test_succeeded_is_written_as_ready_too() -> None:
    assert conditions.ALIASES == {"WorkspaceSucceeded": "WorkspaceReady"}


@pytest.mark.parametrize(
    ("key", "reserved"),
    [
        ("kaito.sh/workspace", True),
        ("kaito.sh/workspacenamespace", True),
        ("kaito.sh/workspace-uid", True),
        ("kaito.sh/ragengine", True),
        ("kaito.sh/ragenginenamespace", True),
        ("kaito.sh/managed-by", True),
        ("kaito.sh/claim", True),
        ("kaito.sh/claim-uid", True),
        ("kaito.sh/claim-kind", True),
        ("kaito.sh/preferred-node", True),
        ("kaito.sh/installation", True),
        ("kaito.sh/activator", True),
        ("kaito.sh/group-role", True),
        ("inferenceset.kaito.sh/created-by", True),
        ("inferenceset.kaito.sh/revision", True),
        ("kaito.sh/machine-type", True),
        ("kaito.sh/creation-timestamp", True),
        ("karpenter.sh/anything", True),
        ("karpenter.kaito.sh/anything", True),
        ("kaito.sh/other", False),
        ("karpenter.sh", True),
        ("mykarpenter.sh/a", False),
        ("apps", False),
        ("node.kubernetes.io/instance-type", False),
    ],
)
def test_labels_of_the_controllers_are_reserved(key: str, *, reserved: bool) -> None:
    assert labels.is_reserved(key) is reserved


@pytest.mark.parametrize(
    ("key", "foreign"),
    [
        ("kubernetes.io/os", True),
        ("accelerator", True),
        ("agentpool", True),
        ("storageprofile", True),
        ("storagetier", True),
        ("apps", False),
    ],
)
def test_kubelets_and_clouds_set_labels_with_a_domain_and_a_few_others(key: str, *, foreign: bool) -> None:
    assert labels.is_set_by_others(key) is foreign


@pytest.mark.parametrize(
    ("value", "yes"),
    [("true", True), ("True", True), (" TRUE ", True), ("yes", False), ("1", False), ("", False), (None, False)],
)
def test_true_in_any_case_is_yes(value: str | None, *, yes: bool) -> None:
    assert labels.is_true(value) is yes
