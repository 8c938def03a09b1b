"""What a Workspace needs, decided once a pass: the input of every builder in `manifests`.

`steps.plan` makes it from the catalog and the settings; it is data only. A Workspace that cannot be planned gets a
`Refusal` instead, whose words go into its conditions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

from kaito.api import labels
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.meta import Quantity


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """The nodes."""

    count: int
    """How many nodes."""
    instance_type: str
    """The cloud's name of the size; empty when the nodes are the user's own."""
    gpus: int
    """GPUs of one node; 0 when nothing is known (a pod template says itself what it wants)."""
    gpu_resource: str = labels.NVIDIA_GPU
    """The extended resource under which a node advertises them."""
    disk: Quantity
    """Size of the operating system disk, `0` for the provider's default."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """How a preset is run, for inference or tuning."""

    model: str
    """Name of the preset."""
    image: str
    """Image of the main container."""
    tools_image: str
    """Image with the registry client of the presets, for the containers that pull adapters and data."""
    pull_secrets: tuple[str, ...] = ()
    """Secrets for `image`."""
    command: tuple[str, ...]
    """Command of the main container."""
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    """Its environment, the model's part."""
    access_secret: str = ""
    """Secret whose key `HF_TOKEN` opens a gated model."""
    readiness_seconds: float = 1800.0
    """How long loading the model may take."""
    downloads: bool = False
    """Whether the server fetches the weights when it starts, into a volume; otherwise they are in the image."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything the steps need to know before they touch the cluster."""

    hardware: Hardware
    serving: Serving | None
    """None for a pod template."""
    config_map: str = ""
    """ConfigMap mounted at `/mnt/config`; empty for none."""
    config_hash: str = ""
    """Digest of its data, so that an edit rolls the pods."""
    training: ConfigMap | None = None
    """That ConfigMap itself where the controller writes it: a tuning run that names none gets its method's defaults."""
    notes: tuple[str, ...] = ()
    """Warnings worth telling: resource checks that were bypassed, odd settings."""


@final
@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no plan."""

    reason: str
    """CamelCase condition reason."""
    message: str
    """The cause and the remedy, in words."""
    waiting: bool = False
    """Whether something other than the Workspace may cure it (a missing ConfigMap or Secret)."""
