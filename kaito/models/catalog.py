"""The preset catalog: finds a model by short name, alias or Hugging Face ID, in any case.

`outside` recognizes the Hugging Face ID of a model that is not in the catalog. Its facts are read from its files before
it is planned (`kaito.models.facts`); a request to Hugging Face at admission would delay the API server.
"""

import difflib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType

import yaml
from pydantic import BaseModel, ConfigDict

from kaito.models.errors import UnknownPreset
from kaito.models.facts.reference import InvalidReference, ModelReference, is_reference
from kaito.models.preset import Preset

INFERENCE_FIELD = "inference.preset.name"
TUNING_FIELD = "tuning.preset.name"


class _Catalog(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)

    presets: list[Preset]


@cache
def _by_name() -> Mapping[str, Preset]:
    text = resources.files("kaito.models").joinpath("data", "presets.yaml").read_text(encoding="utf-8")
    presets = _Catalog.model_validate(yaml.load(text, Loader=_loader())).presets  # noqa: S506 - a safe loader, see _loader
    return MappingProxyType({name: preset for preset in presets for name in preset.names})


def _loader() -> type[yaml.SafeLoader] | type[yaml.CSafeLoader]:
    """Returns the C loader if PyYAML has it: it is five times faster, which keeps the start-up time low."""
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@cache
def presets() -> tuple[Preset, ...]:
    """Returns every supported preset, in the order of the catalog."""
    return tuple({preset.name: preset for preset in _by_name().values() if preset.supported}.values())


def find(name: str) -> Preset | None:
    """Returns the supported preset of that name, or None; `@revision` must be that of the catalog."""
    base, separator, revision = name.strip().lower().partition("@")
    preset = _by_name().get(base)
    if preset is None or not preset.supported or (separator and ("/" not in base or revision != preset.revision)):
        return None
    return preset


def of_repository(name: str) -> Preset | None:
    """Returns the supported preset of a Hugging Face ID at any revision, or None."""
    preset = find(name.partition("@")[0])
    return preset if preset is not None and "/" in name else None


def outside(name: str, *, field: str = INFERENCE_FIELD) -> ModelReference | None:
    """Returns the reference of a model outside the catalog; None if the catalog decides about the name.

    Raises:
        UnknownPreset: the name contains a slash and is not a Hugging Face ID.
    """
    if not is_reference(name) or find(name) is not None:
        return None
    try:
        return ModelReference.parse(name)
    except InvalidReference as error:
        raise UnknownPreset(field, f"{name!r} {error}: write for example {presets()[0].repository}") from error


def near(name: str) -> str:
    """Returns the names of the catalog that are similar, as a question in parentheses; empty if there are none."""
    supported = [key for key, preset in _by_name().items() if preset.supported]
    names = difflib.get_close_matches(name.partition("@")[0].strip().lower(), supported, n=3, cutoff=0.6)
    return f" (did you mean {' or '.join(names)}?)" if names else ""


def get(name: str, *, field: str = INFERENCE_FIELD) -> Preset:
    """Returns the supported preset of that name.

    Raises:
        UnknownPreset: the catalog does not contain it, or it was retired; the message contains similar names.
    """
    preset = find(name)
    if preset:
        return preset
    retired = _by_name().get(name.strip().lower())
    if retired:
        raise UnknownPreset(field, f"{name!r} is {retired.status} and no longer served: {_instead(retired)}")
    if "/" in name:
        raise UnknownPreset(
            field,
            f"{name!r} is not in the catalog, so its size is unknown: choose a model of the catalog"
            f"{_did_you_mean(name)}, or run it through inference.template",
        )
    raise UnknownPreset(field, f"{name!r} is not a preset: choose one of the catalog{_did_you_mean(name)}")


def _instead(retired: Preset) -> str:
    family = [preset.name for preset in presets() if preset.family == retired.family]
    return f"use {family[0]}" if family else f"use a preset such as {presets()[0].name}, or inference.template"


def _did_you_mean(name: str) -> str:
    return near(name) or f", for example {presets()[0].name}"
