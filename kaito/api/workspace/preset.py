"""`preset` of inference and tuning: a model by name, and how to get at it."""

from typing import Annotated, Literal

from pydantic import Field

from kaito.api.schema import ImageReference, ObjectName
from kaito.runtime.meta import Model

AccessMode = Literal["public", "private"]


class PresetOptions(Model):
    """How the model's files are fetched when the defaults do not fit."""

    image: ImageReference = ""
    """Image that holds the model, for models whose licence forbids a public image. With access mode `private`."""

    image_pull_secrets: Annotated[list[ObjectName], Field(json_schema_extra={"maxItems": 16})] = Field(
        default_factory=list[str]
    )
    """Secrets (same namespace) with which `image` is pulled."""

    model_access_secret: ObjectName = ""
    """Secret (same namespace) whose key `HF_TOKEN` opens a gated model on Hugging Face."""


class PresetSpec(Model):
    """A model of the catalogue, by name."""

    name: Annotated[str, Field(json_schema_extra={"minLength": 1, "maxLength": 128})]
    """Preset name such as `phi-3-mini-4k-instruct`, or a Hugging Face id `org/model` that the catalogue knows. Case
    does not matter."""

    access_mode: AccessMode = "public"
    """`private` takes the model from `presetOptions.image`."""

    preset_options: PresetOptions = Field(default_factory=PresetOptions)
    """Image, pull secrets and token."""
