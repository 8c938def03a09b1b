"""The images of preset pods follow from the runtime of the plan, never from the preset."""

from importlib.metadata import version
from typing import Any

import pytest

from kaito.api import Workspace, labels
from kaito.models import catalog, instance_types
from kaito.models.weights import select_weights
from kaito.workspace.images import runtime_image
from kaito.workspace.plan import ModelContainer
from kaito.workspace.planning import inference_plan, tuning_plan
from kaito.workspace.settings import WorkspaceSettings
from kaito.workspace.weights import WeightsChoice, preset_spec

VERSION = version("kaito")
V100, A100 = "Standard_NC6s_v3", "Standard_NC24ads_A100_v4"


def choice(workspace: Workspace, settings: WorkspaceSettings) -> WeightsChoice:
    found = preset_spec(workspace)
    assert found is not None
    spec, path = found
    preset = catalog.get(spec.name)
    return WeightsChoice(weights=select_weights(spec, preset, settings.weights, path=path, image_volumes=False))


def served(
    phi: Workspace, instance_type: str, settings: WorkspaceSettings, *, runtime: str = "", **preset: Any
) -> ModelContainer:
    workspace = phi.evolve(inference={"preset": {"name": "phi-3-mini-4k-instruct", **preset}})
    if runtime:
        workspace = workspace.with_metadata(annotations={labels.RUNTIME: runtime})
    found = catalog.get("phi-3-mini-4k-instruct")
    container = inference_plan(
        workspace, found, instance_types.get(instance_type), settings, choice=choice(workspace, settings)
    ).container
    assert container is not None
    return container


@pytest.mark.parametrize(
    ("instance_type", "runtime", "image", "program"),
    [
        (V100, "", "kaito/kaito-serving", "/workspace/tfs/inference_api.py"),
        (A100, "", "kaito/kaito-vllm", "/workspace/vllm/inference_api.py"),
        (A100, "transformers", "kaito/kaito-serving", "/workspace/tfs/inference_api.py"),
    ],
)
def test_the_image_contains_the_program_that_the_plan_runs(
    phi: Workspace, instance_type: str, runtime: str, image: str, program: str
) -> None:
    container = served(phi, instance_type, WorkspaceSettings(), runtime=runtime)
    assert container.image == container.tools_image == f"{image}:{VERSION}"
    assert program in container.command


def test_registry_and_single_images_are_settings() -> None:
    settings = WorkspaceSettings(image_registry="r.example/kaito", vllm_image="other.example/vllm@sha256:" + "0" * 64)
    assert runtime_image("transformers", settings) == f"r.example/kaito/kaito-serving:{VERSION}"
    assert runtime_image("vllm", settings) == "other.example/vllm@sha256:" + "0" * 64
    assert runtime_image("transformers", WorkspaceSettings(serving_image="mine:1")) == "mine:1"


def test_a_private_image_serves_and_the_runtimes_image_pulls(phi: Workspace) -> None:
    options = {"image": "private.example/phi:1", "imagePullSecrets": ["pull"]}
    container = served(phi, A100, WorkspaceSettings(), accessMode="private", presetOptions=options)
    assert (container.image, container.tools_image) == ("private.example/phi:1", f"kaito/kaito-vllm:{VERSION}")
    assert "--model=/workspace/vllm/weights" in container.command


def test_tuning_runs_in_the_image_of_the_transformers_runtime(phi: Workspace) -> None:
    tuning = {
        "preset": {"name": "phi-3-mini-128k-instruct"},
        "method": "qlora",
        "input": {"urls": ["https://data.example/a"]},
        "output": {"image": "r.example/out:1", "imagePushSecret": "push"},
    }
    workspace = Workspace.model_validate(phi.to_dict() | {"inference": None, "tuning": tuning})
    assert workspace.tuning is not None
    preset = catalog.get("phi-3-mini-128k-instruct")
    settings = WorkspaceSettings()
    container = tuning_plan(
        workspace, workspace.tuning, preset, instance_types.get(A100), settings, choice=choice(workspace, settings)
    ).container
    assert container is not None
    assert container.image == f"kaito/kaito-serving:{VERSION}"
