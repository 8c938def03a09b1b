"""Rules for the names of images, Secrets and ConfigMaps in a Workspace.

They check only the form of the names. The controller checks before it creates nodes that the objects exist.
"""

from collections.abc import Iterator
from typing import Any, Final

from kaito.api.json_values import json_list, json_object
from kaito.api.object_names import object_name_problem
from kaito.api.references import image_problem
from kaito.api.violation import Violation
from kaito.api.workspace.data import DataSource
from kaito.api.workspace.kind import Workspace
from kaito.api.workspace.preset import PresetSpec
from kaito.api.workspace.validation.policy import Rule


def images_valid(workspace: Workspace) -> Iterator[Violation]:
    """Checks that every image reference follows the OCI grammar."""
    for field, image, pushed in _images(workspace):
        if image and (problem := image_problem(image, pushed=pushed)):
            yield Violation(field, problem)


def object_names_valid(workspace: Workspace) -> Iterator[Violation]:
    """Checks that Kubernetes allows the name of every Secret and ConfigMap."""
    for field, name, kind in _objects(workspace):
        if problem := object_name_problem(name, kind):
            yield Violation(field, problem)


def _images(workspace: Workspace) -> Iterator[tuple[str, str, bool]]:
    """Returns field and reference of every image, and whether it is pushed."""
    for path, preset in _presets(workspace):
        yield f"{path}.presetOptions.image", preset.preset_options.image, False
        yield f"{path}.presetOptions.weights.artifact", preset.preset_options.weights.artifact, False
    inference, tuning = workspace.inference, workspace.tuning
    if inference:
        for index, adapter in enumerate(inference.adapters):
            yield f"inference.adapters[{index}].source.image", adapter.source.image, False
            yield from _volume_image(f"inference.adapters[{index}].source.volumeSource", adapter.source.volume_source)
        yield from _template_images(inference.template)
    if tuning:
        yield "tuning.input.image", tuning.input.image, False
        yield from _volume_image("tuning.input.volumeSource", tuning.input.volume_source)
        yield "tuning.output.image", tuning.output.image, True


def _volume_image(path: str, volume: object) -> Iterator[tuple[str, str, bool]]:
    """Returns the image of a volume source of kind `image`."""
    reference: Any = json_object(json_object(volume).get("image")).get("reference")
    if isinstance(reference, str):
        yield f"{path}.image.reference", reference, False


def _template_images(template: dict[str, Any] | None) -> Iterator[tuple[str, str, bool]]:
    spec = json_object((template or {}).get("spec"))
    for part in ("initContainers", "containers"):
        for index, container in enumerate(json_list(spec.get(part))):
            image: Any = json_object(container).get("image")
            if isinstance(image, str):
                yield f"inference.template.spec.{part}[{index}].image", image, False
    for index, volume in enumerate(json_list(spec.get("volumes"))):
        yield from _volume_image(f"inference.template.spec.volumes[{index}]", volume)


def _objects(workspace: Workspace) -> Iterator[tuple[str, str, str]]:
    """Returns field, name and kind of every object that the fields of a Workspace name."""
    for path, preset in _presets(workspace):
        options = preset.preset_options
        yield from _secrets(f"{path}.presetOptions.imagePullSecrets", options.image_pull_secrets)
        if options.model_access_secret:
            yield f"{path}.presetOptions.modelAccessSecret", options.model_access_secret, "Secret"
        if options.model_facts:
            yield f"{path}.presetOptions.modelFacts", options.model_facts, "ConfigMap"
        if claim := options.weights.cache_claim:
            yield f"{path}.presetOptions.weights.cacheClaim", claim, "PersistentVolumeClaim"
    inference, tuning = workspace.inference, workspace.tuning
    if inference:
        for index, adapter in enumerate(inference.adapters):
            yield from _source(f"inference.adapters[{index}].source", adapter.source)
        if inference.config:
            yield "inference.config", inference.config, "ConfigMap"
    if tuning:
        yield from _source("tuning.input", tuning.input)
        if tuning.output.image_push_secret:
            yield "tuning.output.imagePushSecret", tuning.output.image_push_secret, "Secret"
        if tuning.config:
            yield "tuning.config", tuning.config, "ConfigMap"


def _source(path: str, source: DataSource) -> Iterator[tuple[str, str, str]]:
    yield from _secrets(f"{path}.imagePullSecrets", source.image_pull_secrets)


def _secrets(path: str, names: list[str]) -> Iterator[tuple[str, str, str]]:
    for index, name in enumerate(names):
        yield f"{path}[{index}]", name, "Secret"


def _presets(workspace: Workspace) -> Iterator[tuple[str, PresetSpec]]:
    if workspace.inference and workspace.inference.preset:
        yield "inference.preset", workspace.inference.preset
    if workspace.tuning:
        yield "tuning.preset", workspace.tuning.preset


def pull_secrets_belong(workspace: Workspace) -> Iterator[Violation]:
    """Checks that pull secrets are set only together with an image."""
    adapters = workspace.inference.adapters if workspace.inference else []
    sources = [(f"inference.adapters[{index}].source", adapter.source) for index, adapter in enumerate(adapters)]
    if workspace.tuning:
        sources.append(("tuning.input", workspace.tuning.input))
    for path, source in sources:
        if source.image_pull_secrets and not source.image:
            yield Violation(f"{path}.imagePullSecrets", "are set without an image: remove them")


RULES: Final = (
    Rule.always("images-valid", images_valid),
    Rule.always("object-names-valid", object_names_valid),
    Rule.always("pull-secrets-belong", pull_secrets_belong),
)
