"""`preset` of inference and tuning: a model by name, and how its files are obtained."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from kaito.api.schema import ImageReference, ObjectName
from kaito.runtime.crd import Rule
from kaito.runtime.meta import Model

AccessMode = Literal["public", "private"]

_FIXED = "cannot be changed: delete the Workspace and create a new one"


class PresetOptions(Model):
    """Options for obtaining the model's files."""

    image: ImageReference = ""
    """Image that contains the model, for models whose license forbids a public image. With access mode `private`."""

    image_pull_secrets: Annotated[list[ObjectName], Field(json_schema_extra={"maxItems": 16})] = Field(
        default_factory=list[str]
    )
    """Secrets (same namespace, key `.dockerconfigjson`) for pulling `image`, or in access mode `public` for pulling the
    preset's image from a private mirror. They must exist before a node is created."""

    model_access_secret: ObjectName = ""
    """Secret (same namespace) whose key `HF_TOKEN` contains a Hugging Face token for a gated model."""


class PresetSpec(Model):
    """A model of the catalog, by name."""

    rules: ClassVar = [
        Rule("self.name == oldSelf.name", _FIXED, field_path=".name"),
        Rule("self.accessMode == oldSelf.accessMode", _FIXED, field_path=".accessMode"),
        Rule(
            "(has(self.presetOptions) && has(self.presetOptions.image) ? self.presetOptions.image : '') == "
            "(has(oldSelf.presetOptions) && has(oldSelf.presetOptions.image) ? oldSelf.presetOptions.image : '')",
            _FIXED,
            field_path=".presetOptions.image",
        ),
        Rule(
            "self.accessMode != 'private' || (has(self.presetOptions) && has(self.presetOptions.image) && "
            "self.presetOptions.image != '')",
            "accessMode private needs presetOptions.image, the image that holds the model",
            field_path=".presetOptions.image",
        ),
        Rule(
            "self.accessMode != 'public' || !has(self.presetOptions) || !has(self.presetOptions.image) || "
            "self.presetOptions.image == ''",
            "is public, but presetOptions.image is set: use private, or remove the image",
            field_path=".accessMode",
        ),
    ]

    name: Annotated[str, Field(json_schema_extra={"minLength": 1, "maxLength": 128})]
    """Name of a preset such as `phi-3-mini-4k-instruct`, or a Hugging Face ID `org/model` of the catalog. Case does not
    matter."""

    access_mode: AccessMode = "public"
    """`private` uses the model in `presetOptions.image`."""

    preset_options: PresetOptions = Field(default_factory=PresetOptions)
    """Image, pull secrets and access token."""
