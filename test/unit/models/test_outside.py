"""Names of models outside the catalog: at admission, for weights, and for tuning."""

from typing import Any

import pytest

from kaito.api import Workspace
from kaito.api.workspace import PresetSpec
from kaito.models import catalog, instance_types
from kaito.models.admission import check, preset_of
from kaito.models.commands import tuning_command
from kaito.models.errors import TuningUnsupported, UnknownPreset
from kaito.models.facts.presets import preset_of_facts
from kaito.models.facts.reference import InvalidReference, ModelReference
from kaito.models.planning import plan_tuning
from kaito.models.preset import Preset
from kaito.models.weights import WeightsDefaults, select_weights
from test.support.model_fixtures import facts_of, fixture_of

A100 = instance_types.get("Standard_NC24ads_A100_v4")


def workspace(name: str) -> Workspace:
    return Workspace.model_validate(
        {
            "metadata": {"name": "w", "namespace": "default"},
            "resource": {
                "instanceType": "Standard_NC24ads_A100_v4",
                "labelSelector": {"matchLabels": {"apps": "w"}},
            },
            "inference": {"preset": {"name": name}},
        }
    )


def outside(model: str) -> Preset:
    facts = facts_of(fixture_of(model), trust_remote_code=True).model_copy(update={"revision": "a" * 40})
    return preset_of_facts(facts, ModelReference.parse(model))


@pytest.mark.parametrize("name", ["org/name", "org/name@main", "Org.x/n_a-m.e", "a/b@refs/pr/3", "a/b@v1.0"])
def test_an_id_is_admitted_with_a_warning(name: str) -> None:
    (warning,) = check(workspace(name))

    assert (warning.severity, warning.field) == ("warning", "inference.preset.name")
    assert warning.message.startswith(f"{name!r} is not in the catalog: the controller reads its size and dimensions")
    assert preset_of(workspace(name)) is None


def test_a_similar_name_of_the_catalog_is_named() -> None:
    (warning,) = check(workspace("microsoft/phi4"))

    assert "(did you mean microsoft/phi-4 or " in warning.message


@pytest.mark.parametrize(
    "name",
    ["/", "a/", "/b", "a/b/c", "a/b@", "a b/c", "a/../b", "a/b@..", "https://huggingface.co/a/b", "a/b@x y", "-a/b"],
)
def test_another_name_with_a_slash_is_refused(name: str) -> None:
    with pytest.raises(InvalidReference):
        ModelReference.parse(name)
    (error,) = check(workspace(name))
    assert (error.severity, error.field) == ("error", "inference.preset.name")
    assert "write for example microsoft/Phi-3-mini-128k-instruct" in error.message


def test_the_revision_of_the_catalog_is_the_catalog() -> None:
    preset = catalog.get("phi-3-mini-4k-instruct")

    assert catalog.outside(f"{preset.repository}@{preset.revision}") is None
    assert catalog.find(f"{preset.repository}@{preset.revision}") is preset
    assert catalog.outside(f"{preset.repository}@main") == ModelReference(preset.repository, "main")
    assert catalog.of_repository(f"{preset.repository}@main") is preset
    with pytest.raises(UnknownPreset):
        preset_of(workspace(f"{preset.name}@main"))


def test_a_retired_model_is_read_by_its_id() -> None:
    assert catalog.outside("microsoft/phi-2") == ModelReference("microsoft/phi-2")
    with pytest.raises(UnknownPreset, match="is deprecated"):
        preset_of(workspace("phi-2"))


@pytest.mark.parametrize(
    ("weights", "method", "artifact"),
    [
        ({}, "Download", ""),
        ({"artifact": "r.example/m:1"}, "Pull", "r.example/m:1"),
        ({"source": "Pull"}, "Pull", "registry.example/models/huggingfacetb/smollm2-135m-instruct:latest"),
    ],
)
def test_the_registry_is_used_only_if_it_is_requested(weights: dict[str, Any], method: str, artifact: str) -> None:
    model = "HuggingFaceTB/SmolLM2-135M-Instruct"
    spec = PresetSpec.model_validate({"name": model, "presetOptions": {"weights": weights}})
    defaults = WeightsDefaults(model_registry="registry.example/models")

    found = select_weights(spec, outside(model), defaults, path="inference.preset", image_volumes=False)

    assert (found.method, found.artifact) == (method, artifact)


def test_a_model_of_transformers_can_be_tuned() -> None:
    plan = plan_tuning(outside("HuggingFaceTB/SmolLM2-135M-Instruct"), A100, method="lora")

    assert "--model=HuggingFaceTB/SmolLM2-135M-Instruct" in tuning_command(plan)
    assert plan.disk.value == 81 * 2**30


@pytest.mark.parametrize(
    "model", ["Qwen/QwQ-32B-AWQ", "nvidia/Llama-3_3-Nemotron-Super-49B-v1", "llava-hf/llava-1.5-7b-hf"]
)
def test_other_models_cannot_be_tuned(model: str) -> None:
    with pytest.raises(TuningUnsupported, match="cannot be tuned: choose one of"):
        plan_tuning(outside(model), A100, method="lora")
