"""The kind Workspace: nodes, and the model to run on them. Fields, status and validation."""

from kaito.api.workspace.cost import CostStatus as CostStatus, EndedCost as EndedCost, NodeCost as NodeCost
from kaito.api.workspace.data import DataDestination as DataDestination, DataSource as DataSource
from kaito.api.workspace.inference import Adapter as Adapter, InferenceSpec as InferenceSpec
from kaito.api.workspace.kind import Workspace as Workspace, WorkspaceV1Alpha1 as WorkspaceV1Alpha1
from kaito.api.workspace.pod_options import PodOptions as PodOptions, PodResources as PodResources
from kaito.api.workspace.preset import (
    PresetOptions as PresetOptions,
    PresetSpec as PresetSpec,
    WeightsOptions as WeightsOptions,
    WeightsSource as WeightsSource,
)
from kaito.api.workspace.resource import (
    CapacityTypeChoice as CapacityTypeChoice,
    NodeSelector as NodeSelector,
    Partition as Partition,
    ResourceSpec as ResourceSpec,
)
from kaito.api.workspace.scaling import (
    Autoscaling as Autoscaling,
    AutoscalingStatus as AutoscalingStatus,
    ScalingStep as ScalingStep,
    ScalingTarget as ScalingTarget,
    ScheduledMinimum as ScheduledMinimum,
    WorkspaceSpec as WorkspaceSpec,
)
from kaito.api.workspace.status import (
    AdapterStatus as AdapterStatus,
    PerformanceMetric as PerformanceMetric,
    PerformanceStatus as PerformanceStatus,
    ScalingStatus as ScalingStatus,
    WorkspaceState as WorkspaceState,
    WorkspaceStatus as WorkspaceStatus,
)
from kaito.api.workspace.tuning import TuningSpec as TuningSpec
