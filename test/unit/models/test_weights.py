"""The source of weights follows from Workspace, catalog and installation."""

from typing import Any

import pytest

from kaito.api.workspace import PresetSpec
from kaito.models import catalog
from kaito.models.sources import Download, LocalWeights
from kaito.models.weights import Weights, WeightsDefaults, WeightsUnavailable, select_weights

PHI, KIMI = "phi-3-mini-4k-instruct", "kimi-k2.5"
UPSTREAM = "mcr.microsoft.com/aks/kaito/kaito-phi-3-mini-4k-instruct:0.2.0"
OWN = "r.example/models/phi-3-mini-4k-instruct:0.2.0"
MINE = "r.example/mine:1"
REGISTRY = WeightsDefaults(model_registry="r.example/models")
NOTHING = WeightsDefaults()


def select(preset: str, defaults: WeightsDefaults = NOTHING, *, image_volumes: bool = True, **weights: Any) -> Weights:
    spec = PresetSpec.model_validate({"name": preset, "presetOptions": {"weights": weights}})
    return select_weights(spec, catalog.get(preset), defaults, path="inference.preset", image_volumes=image_volumes)


@pytest.mark.parametrize(
    ("preset", "defaults", "image_volumes", "weights", "expected"),
    [
        (PHI, NOTHING, True, {}, ("Pull", UPSTREAM)),
        (PHI, REGISTRY, True, {}, ("ImageVolume", OWN)),
        (PHI, REGISTRY, False, {}, ("Pull", OWN)),
        (PHI, REGISTRY, True, {"artifact": MINE}, ("ImageVolume", MINE)),
        (PHI, NOTHING, True, {"artifact": MINE}, ("ImageVolume", MINE)),
        (PHI, REGISTRY, True, {"source": "Download"}, ("Download", "")),
        (PHI, REGISTRY, True, {"source": "Pull"}, ("Pull", OWN)),
        (PHI, NOTHING, True, {"source": "Pull"}, ("Pull", UPSTREAM)),
        (PHI, REGISTRY, False, {"source": "ImageVolume"}, ("ImageVolume", OWN)),
        (KIMI, NOTHING, True, {}, ("Download", "")),
        (KIMI, REGISTRY, True, {}, ("ImageVolume", "r.example/models/kimi-k2.5:latest")),
        (PHI, WeightsDefaults(source="Download"), True, {}, ("Download", "")),
        (PHI, WeightsDefaults(source="Download"), True, {"source": "Pull"}, ("Pull", UPSTREAM)),
        (PHI, WeightsDefaults(source="Pull"), True, {}, ("Pull", UPSTREAM)),
    ],
)
def test_the_first_source_that_is_known_and_supported_is_selected(
    preset: str,
    defaults: WeightsDefaults,
    weights: dict[str, Any],
    expected: tuple[str, str],
    *,
    image_volumes: bool,
) -> None:
    found = select(preset, defaults, image_volumes=image_volumes, **weights)
    assert (found.method, found.artifact) == expected
    assert (found.cache_claim, found.cache_directory) == ("", "")


@pytest.mark.parametrize(
    ("preset", "defaults", "claim", "expected"),
    [
        (PHI, NOTHING, "models", Weights(method="NodeCache", artifact=UPSTREAM, cache_claim="models")),
        (
            PHI,
            WeightsDefaults(cache_directory="/var/cache/kaito"),
            "models",
            Weights(method="NodeCache", artifact=UPSTREAM, cache_claim="models"),
        ),
        (
            KIMI,
            WeightsDefaults(cache_directory="/var/cache/kaito"),
            "",
            Weights(method="NodeCache", cache_directory="/var/cache/kaito"),
        ),
    ],
)
def test_a_cache_is_a_claim_or_a_directory_of_the_nodes(
    preset: str, defaults: WeightsDefaults, claim: str, expected: Weights
) -> None:
    given: dict[str, Any] = {"source": "NodeCache"} | ({"cacheClaim": claim} if claim else {})
    assert select(preset, defaults, **given) == expected


@pytest.mark.parametrize(
    ("preset", "weights", "field", "words"),
    [
        (PHI, {"source": "NodeCache"}, "source", "there is no cache: name a PersistentVolumeClaim in cacheClaim"),
        (KIMI, {"source": "Pull"}, "artifact", "source Pull needs an artifact with the weights of kimi-k2.5: name one"),
        (KIMI, {"source": "ImageVolume"}, "artifact", "or use source Auto or Download"),
        (PHI, {"source": "ImageVolume"}, "artifact", "upstream's artifact is not an image that can be mounted"),
    ],
)
def test_a_source_that_is_not_known_is_an_error_with_its_remedy(
    preset: str, weights: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(WeightsUnavailable) as raised:
        select(preset, **weights)
    assert raised.value.field == f"inference.preset.presetOptions.weights.{field}"
    assert words in raised.value.message


def test_a_private_image_contains_the_weights() -> None:
    given: dict[str, Any] = {"name": PHI, "accessMode": "private", "presetOptions": {"image": "p.example/phi:1"}}
    spec = PresetSpec.model_validate(given)
    found = select_weights(spec, catalog.get(PHI), REGISTRY, path="inference.preset", image_volumes=True)
    assert (found.method, found.downloads) == ("Image", False)
    assert found.model_source(catalog.get(PHI)) == LocalWeights()


def test_the_server_loads_from_the_volume_or_downloads_the_revision_of_the_catalog() -> None:
    preset = catalog.get(PHI)
    assert select(PHI).model_source(preset) == LocalWeights("/workspace/weights")
    assert select(PHI, source="Download").model_source(preset) == Download(preset.repository, preset.revision)
    cached = select(KIMI, source="NodeCache", cacheClaim="models")
    assert cached.downloads
