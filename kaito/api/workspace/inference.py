"""`workspace.inference`: serve a preset, or a pod template of the user's own."""

from typing import Annotated

from pydantic import Field

from kaito.api.schema import ObjectName, RawObject
from kaito.api.workspace.data import DataSource
from kaito.api.workspace.preset import PresetSpec
from kaito.runtime.meta import Model

ADAPTER_LIMIT = 10
"""Most adapters of one Workspace (upstream Kaito v0.12 has the same limit)."""


class Adapter(Model):
    """A LoRA adapter on top of the preset's model."""

    source: DataSource
    """Where the adapter's files are: `name` and exactly one of `image` and `volumeSource`."""

    strength: Annotated[str, Field(json_schema_extra={"maxLength": 16})] = ""
    """How much of the adapter is merged, a decimal number from 0 to 1 as text; `1.0` when absent."""


class InferenceSpec(Model):
    """What to serve. Exactly one of `preset` and `template`."""

    preset: PresetSpec | None = None
    """A model of the catalogue. Cannot be changed."""

    template: RawObject | None = None
    """A core/v1 PodTemplateSpec to run instead of a preset. It may change, and the workload follows."""

    config: ObjectName = ""
    """ConfigMap (same namespace) whose key `inference_config.yaml` holds settings of the inference server."""

    adapters: Annotated[list[Adapter], Field(json_schema_extra={"maxItems": ADAPTER_LIMIT})] = Field(
        default_factory=list[Adapter]
    )
    """LoRA adapters to serve with the model, at most ten, each with a name of its own."""
