"""`preset` of inference and tuning: a model by name, and how its files are obtained."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from kaito.api.schema import ImageReference, ObjectName
from kaito.api.workspace.pod_options import PodOptions
from kaito.runtime.crd import Rule
from kaito.runtime.meta import Model

AccessMode = Literal["public", "private"]
WeightsSource = Literal["Auto", "ImageVolume", "Pull", "NodeCache", "Download"]

_FIXED = "cannot be changed: delete the Workspace and create a new one"


class WeightsOptions(Model):
    """Source of the model's weights. A change replaces the pods."""

    rules: ClassVar = [
        Rule(
            "self.source != 'Download' || !has(self.artifact) || self.artifact == ''",
            "has no effect with source Download: remove it, or use another source",
            field_path=".artifact",
        ),
        Rule(
            "self.source == 'NodeCache' || !has(self.cacheClaim) || self.cacheClaim == ''",
            "belongs to source NodeCache: set source to NodeCache, or remove it",
            field_path=".cacheClaim",
        ),
    ]

    source: WeightsSource = "Auto"
    """`ImageVolume` mounts the artifact as an image volume. `Pull` pulls it in an init container. `NodeCache` pulls it
    into a cache that pods share. `Download` downloads the model from Hugging Face. `Auto` uses the controller's
    `--weights-source`, else an image volume or a pull if an artifact is known, else a download."""

    artifact: ImageReference = ""
    """OCI artifact with the weights: `registry/repository:tag` or `…@sha256:…`. Default: the artifact of the preset in
    `--model-registry`, and for `Pull` and `NodeCache` also the one that upstream Kaito publishes."""

    cache_claim: ObjectName = ""
    """PersistentVolumeClaim (same namespace) that keeps the weights, for `NodeCache`. Default: the directory of the
    node that `--node-cache-directory` names."""


class PresetOptions(Model):
    """Options for obtaining the model's files."""

    image: ImageReference = ""
    """Image that contains the model, for models whose license forbids a public image. With access mode `private`."""

    image_pull_secrets: Annotated[list[ObjectName], Field(json_schema_extra={"maxItems": 16})] = Field(
        default_factory=list[str]
    )
    """Secrets (same namespace, key `.dockerconfigjson`) for pulling the images of the pod and the artifact with the
    weights. They must exist before a node is created."""

    model_access_secret: ObjectName = ""
    """Secret (same namespace) whose key `HF_TOKEN` contains a Hugging Face token for a gated model."""

    weights: WeightsOptions = Field(default_factory=WeightsOptions)
    """Source of the weights in access mode `public`."""

    model_facts: ObjectName = ""
    """ConfigMap (same namespace, key `facts.json`) with the facts of a model outside the catalog, which the controller
    then does not read from Hugging Face. `kaito model inspect --facts` writes it."""

    trust_remote_code: bool = False
    """Whether Python code of the model's repository may run in the pod; for models outside the catalog."""


class PresetSpec(Model):
    """A model, by its name in the catalog or its Hugging Face ID."""

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
        Rule(
            "self.accessMode != 'private' || !has(self.presetOptions) || !has(self.presetOptions.weights) || "
            "(self.presetOptions.weights.source == 'Auto' && (!has(self.presetOptions.weights.artifact) || "
            "self.presetOptions.weights.artifact == ''))",
            "have no effect with accessMode private, where presetOptions.image contains the weights: remove them",
            field_path=".presetOptions.weights",
        ),
    ]

    name: Annotated[str, Field(json_schema_extra={"minLength": 1, "maxLength": 256})]
    """Name of a preset such as `phi-3-mini-4k-instruct`, or a Hugging Face ID `org/model` or `org/model@revision`. The
    controller reads the size and the dimensions of a model outside the catalog from Hugging Face, or from
    `presetOptions.modelFacts`, and pins the commit. Case does not matter for names of the catalog."""

    access_mode: AccessMode = "public"
    """`private` uses the model in `presetOptions.image`."""

    pod_options: PodOptions = Field(default_factory=PodOptions)
    """Fields of the preset's pods, such as resources, environment and tolerations."""

    preset_options: PresetOptions = Field(default_factory=PresetOptions)
    """Image, pull secrets, access token, and source of the weights."""
