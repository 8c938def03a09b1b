"""Selects the source of a preset's weights: pure functions of the Workspace, the catalog and the installation.

An OCI artifact with the weights is mounted as an image volume, or pulled by an init container. Without an artifact, the
server downloads the weights from Hugging Face. `Auto` selects in this order what is known and supported.
"""

from dataclasses import dataclass
from typing import Final, Literal, final

from kaito.api import conditions
from kaito.api.workspace import PresetSpec, WeightsSource
from kaito.models.errors import PlanError
from kaito.models.preset import Preset
from kaito.models.sources import WEIGHTS_DIRECTORY, LocalWeights, ModelSource, download_of

WeightsMethod = Literal["Image", "ImageVolume", "Pull", "NodeCache", "Download"]
"""How a pod gets the weights; `Image` is the user's private image, which contains them."""

SOURCE: Final = "presetOptions.weights.source"
ARTIFACT: Final = "presetOptions.weights.artifact"


class WeightsUnavailable(PlanError):
    """The source of the weights cannot be used."""

    reason = conditions.INVALID_SPEC


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsDefaults:
    """Settings of the installation."""

    source: WeightsSource = "Auto"
    """Source for Workspaces that do not name one (`--weights-source`)."""
    model_registry: str = ""
    """Registry and path of the user's artifacts (`--model-registry`); empty for none."""
    cache_directory: str = ""
    """Directory of the nodes that keeps weights (`--node-cache-directory`); empty for none."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The selected source of the weights."""

    method: WeightsMethod
    artifact: str = ""
    """Reference of the OCI artifact; empty for a download from Hugging Face and for a private image."""
    cache_claim: str = ""
    """PersistentVolumeClaim that keeps the weights. Method `NodeCache` only."""
    cache_directory: str = ""
    """Directory of the node that keeps the weights. Method `NodeCache` without a claim."""

    @property
    def downloads(self) -> bool:
        """Whether the server downloads the weights from Hugging Face."""
        return self.method != "Image" and not self.artifact

    def model_source(self, preset: Preset) -> ModelSource:
        """Returns where the server loads the weights from."""
        if self.method == "Image":
            return LocalWeights()
        return download_of(preset) if self.downloads else LocalWeights(WEIGHTS_DIRECTORY)


IN_IMAGE: Final = Weights(method="Image")
"""The source of a private image."""


def select_weights(
    spec: PresetSpec, preset: Preset, defaults: WeightsDefaults, *, path: str, image_volumes: bool
) -> Weights:
    """Selects the source of a preset's weights.

    Args:
        spec: the preset of the Workspace.
        preset: the model of the catalog.
        defaults: settings of the installation.
        path: path of `spec` in the Workspace, for messages.
        image_volumes: whether the cluster and the nodes support image volumes; decides `Auto` only.

    Raises:
        WeightsUnavailable: the source needs an artifact or a cache that is not known.
    """
    if spec.access_mode == "private":
        return IN_IMAGE
    given = spec.preset_options.weights
    source: WeightsSource = defaults.source if given.source == "Auto" else given.source
    own = given.artifact or (preset.artifact(defaults.model_registry) if defaults.model_registry else "")
    if source == "Auto" and not preset.is_in_catalog:
        own = given.artifact  # the registry is not known to contain models outside the catalog
    pulled = own or preset.upstream_artifact
    match source:
        case "Auto":
            if own and image_volumes:
                return Weights(method="ImageVolume", artifact=own)
            return Weights(method="Pull", artifact=pulled) if pulled else Weights(method="Download")
        case "Download":
            return Weights(method="Download")
        case "NodeCache":
            return _cached(given.cache_claim, pulled, defaults, path)
        case "ImageVolume":
            _require(own, source, path, preset)
            return Weights(method="ImageVolume", artifact=own)
        case "Pull":
            _require(pulled, source, path, preset)
            return Weights(method="Pull", artifact=pulled)


def _cached(claim: str, artifact: str, defaults: WeightsDefaults, path: str) -> Weights:
    """Returns the source with a cache. Without an artifact, the cache contains what the servers download."""
    if not claim and not defaults.cache_directory:
        raise WeightsUnavailable(
            f"{path}.{SOURCE}",
            "is NodeCache, but there is no cache: name a PersistentVolumeClaim in cacheClaim, or set the controller's "
            "flag --node-cache-directory",
        )
    directory = "" if claim else defaults.cache_directory
    return Weights(method="NodeCache", artifact=artifact, cache_claim=claim, cache_directory=directory)


def _require(artifact: str, source: WeightsSource, path: str, preset: Preset) -> None:
    if artifact:
        return
    published = ": upstream's artifact is not an image that can be mounted" if preset.upstream_artifact else ""
    raise WeightsUnavailable(
        f"{path}.{ARTIFACT}",
        f"is empty, and source {source} needs an artifact with the weights of {preset.name}{published}: name one, set "
        "the controller's flag --model-registry, or use source Auto or Download",
    )
