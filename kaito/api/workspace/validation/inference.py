"""Rules for `inference`: preset or template, and adapters."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from kaito.api.violation import Violation
from kaito.api.workspace.inference import ADAPTER_LIMIT, Adapter, InferenceSpec
from kaito.api.workspace.kind import Workspace
from kaito.api.workspace.preset import PresetSpec
from kaito.api.workspace.validation.policy import Rule

_DNS_1123_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_STRENGTH: Final = re.compile(r"0?\.\d+|0(\.\d*)?|1(\.0*)?")


def preset_or_template(workspace: Workspace) -> Iterator[Violation]:
    """Checks that exactly one of preset and template is set."""
    inference = workspace.inference
    if inference is None:
        return
    if inference.preset and inference.template is not None:
        yield Violation("inference.template", "preset and template are both set: remove one")
    if not inference.preset and inference.template is None:
        yield Violation(
            "inference.preset",
            "neither preset nor template is set: name a model in inference.preset.name, or give a pod template",
        )
    if inference.template is not None:
        yield from _template(inference)


def _template(inference: InferenceSpec) -> Iterator[Violation]:
    spec: Any = (inference.template or {}).get("spec")
    if not isinstance(spec, Mapping) or not cast("Mapping[str, Any]", spec).get("containers"):
        yield Violation("inference.template.spec.containers", "is empty: a pod needs at least one container")
    if inference.adapters:
        yield Violation("inference.adapters", "belong to a preset: remove them, or use inference.preset")
    if inference.config:
        yield Violation("inference.config", "belongs to a preset: remove it, or mount the ConfigMap in the template")


def preset_shape(workspace: Workspace) -> Iterator[Violation]:
    """Checks the presets of inference and tuning."""
    if workspace.inference and workspace.inference.preset:
        yield from check_preset(workspace.inference.preset, "inference.preset")
    if workspace.tuning:
        yield from check_preset(workspace.tuning.preset, "tuning.preset")


def check_preset(preset: PresetSpec, path: str) -> Iterator[Violation]:
    """Checks that the access mode and the image of a preset match."""
    options = preset.preset_options
    if preset.access_mode == "private" and not options.image:
        yield Violation(
            f"{path}.presetOptions.image", "is empty: access mode private needs the image that holds the model"
        )
    if preset.access_mode == "public" and options.image:
        yield Violation(
            f"{path}.accessMode", "is public, but presetOptions.image is set: use private, or remove the image"
        )


def weights_valid(workspace: Workspace) -> Iterator[Violation]:
    """Checks that the fields of the weights belong to their source."""
    if workspace.inference and workspace.inference.preset:
        yield from _weights(workspace.inference.preset, "inference.preset")
    if workspace.tuning:
        yield from _weights(workspace.tuning.preset, "tuning.preset")


def _weights(preset: PresetSpec, path: str) -> Iterator[Violation]:
    weights, field = preset.preset_options.weights, f"{path}.presetOptions.weights"
    if preset.access_mode == "private" and (weights.source != "Auto" or weights.artifact):
        message = "have no effect with accessMode private, where presetOptions.image contains the weights: remove them"
        yield Violation(field, message)
        return
    if weights.source == "Download" and weights.artifact:
        message = "has no effect with source Download: remove it, or use another source"
        yield Violation(f"{field}.artifact", message)
    if weights.source != "NodeCache" and weights.cache_claim:
        message = "belongs to source NodeCache: set source to NodeCache, or remove it"
        yield Violation(f"{field}.cacheClaim", message)


def adapters_valid(workspace: Workspace) -> Iterator[Violation]:
    """Checks that there are at most ten adapters, each with a unique name, one source and a strength from 0 to 1."""
    adapters = workspace.inference.adapters if workspace.inference else []
    if len(adapters) > ADAPTER_LIMIT:
        yield Violation("inference.adapters", f"{len(adapters)} adapters: use at most {ADAPTER_LIMIT}")
    names: set[str] = set()
    for index, adapter in enumerate(adapters):
        path = f"inference.adapters[{index}]"
        yield from _adapter(adapter, path)
        if adapter.source.name in names:
            yield Violation(f"{path}.source.name", f"{adapter.source.name!r} is used twice: give each adapter its own")
        if adapter.source.name:
            names.add(adapter.source.name)


def _adapter(adapter: Adapter, path: str) -> Iterator[Violation]:
    source = adapter.source
    if not source.name:
        yield Violation(f"{path}.source.name", "is empty: name the adapter, for example my-adapter")
    elif not _DNS_1123_SUBDOMAIN.fullmatch(source.name):
        yield Violation(
            f"{path}.source.name", f"{source.name!r} is not a name: use lower-case letters, digits, '-' and '.'"
        )
    if source.urls:
        yield Violation(f"{path}.source.urls", "cannot hold an adapter: use image or volumeSource")
    elif len(source.kinds) != 1:
        given = " and ".join(source.kinds) or "nothing"
        yield Violation(f"{path}.source", f"has {given}: set exactly one of image and volumeSource")
    if adapter.strength and not _STRENGTH.fullmatch(adapter.strength):
        yield Violation(
            f"{path}.strength", f'{adapter.strength!r} is not a number from 0 to 1 as text, for example "0.5"'
        )


RULES: Final = (
    Rule.always("preset-or-template", preset_or_template),
    Rule.always("preset-shape", preset_shape),
    Rule.always("weights-valid", weights_valid),
    Rule.always("adapters-valid", adapters_valid),
)
