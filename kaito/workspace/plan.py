"""The plan of a Workspace: data that the steps and the builders in `manifests` work from.

`preflight` computes it in each reconcile from the catalog and the settings. A Workspace that cannot be planned has a
`PlanFailure` instead, which its conditions report.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import final

from kaito.api import labels
from kaito.models.copies import existing_nodes_of, nodes_of
from kaito.models.planning import InferencePlan, TuningPlan
from kaito.models.weights import IN_IMAGE, Weights
from kaito.prices.price import CapacityType
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.meta import Quantity
from kaito.workspace.alternatives import Choice
from kaito.workspace.hub.record import FactsRecord


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """The nodes that a Workspace needs."""

    copies: int
    """Number of copies of the model."""
    nodes_per_copy: int = 1
    """Nodes that serve one copy of the model together."""
    copies_per_node: int = 1
    """Copies that fit on one node; more than 1 only if the GPUs of new nodes are divided, and a copy needs one node."""
    places: Mapping[str, int] = field(default_factory=dict[str, int])
    """Copies that each existing node has the resources for, by its name; empty for new nodes, and if each copy needs a
    node or several."""
    instance_type: str
    """The cloud's name of the instance type; empty with existing nodes."""
    capacity_types: tuple[CapacityType, ...] = ()
    """What new nodes may be, in the order in which it is tried; empty for the provisioner's default."""
    on_demand_copies: int = 0
    """Copies whose new nodes are on-demand although others may be spot."""
    zones: tuple[str, ...] = ()
    """Zones of new nodes; empty for any."""
    gpus: int
    """GPUs, or slices of GPUs, of one pod; 0 if unknown, as for a pod template, which contains its own requests."""
    gpu_resource: str = labels.NVIDIA_GPU
    """Extended resource under which a node advertises its GPUs or slices."""
    gpu_profile: str = ""
    """How the GPUs of new nodes are divided, by the cloud's name of the profile; empty for whole GPUs."""
    disk: Quantity
    """Size of the operating system disk; `0` for the provider's default."""

    def capacity_types_of(self, index: int) -> tuple[CapacityType, ...]:
        """Returns what the node with an index may be. The first ones are those of `on_demand_copies`.

        If limits of the cost allow only spot nodes, all are spot.
        """
        if index < self._nodes_of(self.on_demand_copies) and "on-demand" in self.capacity_types:
            return ("on-demand",)
        return self.capacity_types

    @property
    def count(self) -> int:
        """Number of nodes; of existing nodes that several copies may share, the smallest number that suffices."""
        return self.count_of(self.places) if self.places else self._nodes_of(self.copies)

    def count_of(self, names: Iterable[str]) -> int:
        """Returns the number of nodes if only these existing nodes can be used, and others like the largest one."""
        places = [self.places.get(name, 1) for name in names]
        return existing_nodes_of(self.copies, places, largest=max(self.places.values(), default=1))

    def _nodes_of(self, copies: int) -> int:
        return nodes_of(copies, self.nodes_per_copy, self.copies_per_node)

    @property
    def workers(self) -> int:
        """Number of nodes that serve a copy together with the node of its leader; 0 if a node serves a whole copy."""
        return self.copies * (self.nodes_per_copy - 1)

    @property
    def gpus_per_node(self) -> int:
        """GPUs, or slices of GPUs, that a node must advertise; 0 if unknown."""
        return self.gpus * self.copies_per_node

    @property
    def is_group(self) -> bool:
        """Whether a copy of the model is divided over several nodes, also while there are no copies."""
        return self.nodes_per_copy > 1


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ModelContainer:
    """The container that serves or tunes a preset."""

    preset: str
    """Name of the preset."""
    image: str
    """Image of the container."""
    tools_image: str
    """Image with the registry client, for the init containers that pull adapters and data."""
    pull_secrets: tuple[str, ...] = ()
    """Secrets to pull `image`."""
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    """Environment variables that the model needs."""
    access_secret: str = ""
    """Secret whose key `HF_TOKEN` gives access to a gated model."""
    readiness_seconds: float = 1800.0
    """Time limit for loading the model."""
    weights: Weights = IN_IMAGE
    """Source of the weights."""
    is_weights_provisional: bool = False
    """Whether the source may be another one once the nodes are known. No workload is created before."""
    follows_adapter_list: bool = False
    """Whether the server loads and unloads adapters without a restart, by the list in a ConfigMap."""
    is_private: bool = False
    """Whether the image is the user's (access mode `private`)."""
    weights_inputs: str = ""
    """Digest of the fields that select the source. While it is the same, a workload keeps its source."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Nodes and container of a Workspace."""

    hardware: Hardware
    container: ModelContainer | None
    """None for a pod template."""
    model: InferencePlan | TuningPlan | None = None
    """How the preset runs on the nodes; None for a pod template."""
    config_map: str = ""
    """ConfigMap that is mounted at `/mnt/config`; empty for none."""
    config_hash: str = ""
    """Digest of the ConfigMap's data, so that an edit replaces the pods."""
    memory_settings: str = ""
    """Digest of the settings that change the memory of the engine; measurements are kept under it."""
    host_cache: bool = False
    """Whether vLLM keeps a part of the key-value cache in the memory of the pod."""
    drain_seconds: float | None = None
    """Time for running requests after SIGTERM, of the user's configuration; None for the default of the servers."""
    training_config: ConfigMap | None = None
    """ConfigMap that the controller creates: the method's defaults, for a tuning Workspace without a ConfigMap."""
    facts: FactsRecord | None = None
    """Facts of a model outside the catalog, and where they are from."""
    choice: Choice | None = None
    """The chosen alternative of `resource.instanceTypes`; None if the Workspace names one instance type."""
    explanation: str = ""
    """Why a copy of the model needs several nodes; empty for one node."""
    trace_environment: Mapping[str, str] = field(default_factory=dict[str, str])
    """Environment variables for tracing of the pods of a preset; those of the workload that exists."""
    warnings: tuple[str, ...] = ()
    """Messages for the condition, such as bypassed resource checks."""


@final
@dataclass(frozen=True, slots=True)
class PlanFailure:
    """Why a Workspace cannot be planned."""

    reason: str
    """CamelCase reason of the condition."""
    message: str
    """Cause and remedy."""
    is_waiting: bool = False
    """Whether another object may resolve it, such as a missing ConfigMap or Secret."""
