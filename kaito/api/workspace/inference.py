"""`workspace.inference`: serves a preset, or the user's pod template."""

from typing import Annotated, ClassVar

from pydantic import Field

from kaito.api.schema import ObjectName, RawObject
from kaito.api.workspace.data import DataSource
from kaito.api.workspace.preset import PresetSpec
from kaito.runtime.crd import Rule, rules as field_rules
from kaito.runtime.meta import Model

ADAPTER_LIMIT = 10
"""Maximum number of adapters of one Workspace, as in upstream Kaito v0.12."""


class Adapter(Model):
    """A LoRA adapter on top of the preset's model."""

    rules: ClassVar = [
        Rule(
            "has(self.source.name) && self.source.name.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",
            "name the adapter with lower-case letters, digits, '-' and '.', for example my-adapter",
            field_path=".source.name",
        ),
        Rule(
            "(has(self.source.image) && self.source.image != '') != has(self.source.volumeSource)",
            "set exactly one of image and volumeSource",
            field_path=".source",
        ),
        Rule(
            "!has(self.source.urls) || size(self.source.urls) == 0",
            "cannot hold an adapter: use image or volumeSource",
            field_path=".source.urls",
        ),
        Rule(
            r"!has(self.strength) || self.strength == '' || "
            r"self.strength.matches('^(0?[.][0-9]+|0([.][0-9]*)?|1([.]0*)?)$')",
            "must be a number from 0 to 1 as text, for example '0.5'",
            field_path=".strength",
        ),
    ]

    source: DataSource
    """Source of the adapter's files: `name`, and exactly one of `image` and `volumeSource`."""

    strength: Annotated[str, Field(json_schema_extra={"maxLength": 16})] = ""
    """Strength with which the adapter is merged: a decimal number from 0 to 1 as text. Default: `1.0`."""


class InferenceSpec(Model):
    """The model to serve. Exactly one of `preset` and `template`."""

    rules: ClassVar = [
        Rule(
            "has(self.preset) || has(self.template)",
            "neither preset nor template is set: name a model in preset.name, or give a pod template",
        ),
        Rule("!(has(self.preset) && has(self.template))", "preset and template are both set: remove one"),
        Rule(
            "has(self.preset) == has(oldSelf.preset) && has(self.template) == has(oldSelf.template)",
            "preset and template cannot be exchanged later: delete the Workspace and create a new one",
        ),
        Rule(
            "!has(self.adapters) || size(self.adapters) == 0 || has(self.preset)",
            "belong to a preset: remove them, or use preset instead of template",
            field_path=".adapters",
        ),
        Rule(
            "!has(self.config) || self.config == '' || has(self.preset)",
            "belongs to a preset: remove it, or mount the ConfigMap in the template",
            field_path=".config",
        ),
    ]

    preset: PresetSpec | None = None
    """The model to serve. Cannot be changed."""

    template: RawObject | None = None
    """A core/v1 PodTemplateSpec to run instead of a preset. It can be changed, which replaces the pods. The API server
    checks it in a dry run before a node is created."""

    config: ObjectName = ""
    """ConfigMap (same namespace) whose key `inference_config.yaml` contains settings of the inference server. It is
    checked before a node is created, and its context length, memory share and parallel sizes determine the memory that
    the model needs."""

    adapters: Annotated[
        list[Adapter],
        Field(
            json_schema_extra=field_rules(
                Rule(
                    "self.all(a, !has(a.source.name) || "
                    "self.exists_one(b, has(b.source.name) && b.source.name == a.source.name))",
                    "two adapters have the same source.name: give each its own",
                ),
                maxItems=ADAPTER_LIMIT,
            )
        ),
    ] = Field(default_factory=list[Adapter])
    """LoRA adapters to serve with the model: at most ten, with unique names."""
