"""Admission checks a Workspace against the catalog: rejection with field and remedy, warning, or acceptance."""

from typing import Any

import pytest

from kaito.api import Workspace
from kaito.models.admission import check

NC6 = "Standard_NC6s_v3"
A100 = "Standard_NC24ads_A100_v4"


def workspace(instance: str, annotations: dict[str, str] | None = None, **parts: Any) -> Workspace:
    return Workspace.model_validate(
        {
            "metadata": {"name": "w", "annotations": annotations or {}},
            "resource": {"instanceType": instance, "labelSelector": {"matchLabels": {"apps": "w"}}},
            **parts,
        }
    )


def inference(name: str, **more: Any) -> dict[str, Any]:
    return {"preset": {"name": name}, **more}


def tuning(name: str, method: str = "qlora") -> dict[str, Any]:
    return {
        "preset": {"name": name},
        "method": method,
        "input": {"urls": ["https://datasets.example/a"]},
        "output": {"image": "a", "imagePushSecret": "b"},
    }


def messages(w: Workspace, **policy: Any) -> list[str]:
    return [f"{violation.severity}: {violation}" for violation in check(w, **policy)]


def test_the_sample_workspaces_have_no_violations() -> None:
    adapter = {"source": {"name": "phi-3-adapter", "image": "REGISTRY/ADAPTER:0.0.1"}, "strength": "1.0"}

    assert messages(workspace(NC6, inference=inference("phi-3-mini-4k-instruct"))) == []
    assert messages(workspace(NC6, inference=inference("phi-3-mini-128k-instruct", adapters=[adapter]))) == []
    assert messages(workspace(NC6, tuning=tuning("phi-3-mini-128k-instruct"))) == []


def test_a_wrong_preset_and_a_wrong_instance_type_are_both_reported() -> None:
    found = messages(workspace("Standard_NC6s_v4", inference=inference("phi-3-mini")))

    assert [line.partition(": '")[0] for line in found] == [
        "error: inference.preset.name",
        "error: resource.instanceType",
    ]


@pytest.mark.parametrize(
    ("instance", "fragment"),
    [
        ("Standard_D8s_v5", "'Standard_D8s_v5' has no GPU"),
        ("Standard_NX1", "'Standard_NX1' is not a known GPU instance type of azure"),
        ("Standard_NG32ads_V620_v1", "has no NVIDIA GPU"),
        ("Standard_NV12s_v3", "is too old"),
        (
            NC6,
            "is too small for phi-3-medium-4k-instruct: it takes about 28.0 GiB, 16.0 GiB are usable: choose a larger",
        ),
    ],
)
def test_an_unsuitable_instance_type_is_rejected(instance: str, fragment: str) -> None:
    (found,) = messages(workspace(instance, inference=inference("phi-3-medium-4k-instruct")))

    assert found.startswith("error: resource.instanceType: ")
    assert fragment in found


def test_the_size_check_can_be_bypassed_into_a_warning() -> None:
    (found,) = messages(
        workspace(NC6, {"kaito.sh/bypass-resource-checks": "True"}, inference=inference("phi-3-medium-4k-instruct"))
    )

    assert found.startswith("warning: resource.instanceType: ")


def test_a_template_may_run_without_a_gpu_and_on_sizes_newer_than_the_table() -> None:
    template = {"template": {"spec": {"containers": [{"name": "a"}]}}}

    assert messages(workspace("Standard_NC999_Z900_v9", inference=template)) == []
    assert messages(workspace("Standard_D8s_v5", inference=template)) == []
    (found,) = messages(workspace("Standard_Nsku", inference=template))
    assert "'Standard_Nsku' is not a known GPU instance type of azure" in found


def test_a_template_without_the_table_knowing_a_gpu_is_left_alone() -> None:
    assert messages(workspace("Standard_NG32ads_V620_v1", inference={"template": {"spec": {}}})) == []


def test_with_existing_nodes_only_the_preset_is_looked_at() -> None:
    assert messages(workspace("", inference=inference("phi-4")), node_api="byo") == []
    (found,) = messages(workspace("", inference=inference("phi-5")), node_api="byo")
    assert "inference.preset.name: 'phi-5' is not a preset" in found


def test_strength_on_a_model_that_only_vllm_serves_is_accepted() -> None:
    """The vLLM server scales `lora_alpha` in a copy of the adapter."""
    adapter = {"source": {"name": "a", "image": "b"}, "strength": "0.5"}

    assert messages(workspace(A100, inference=inference("granite-4.1-8b", adapters=[adapter]))) == []


def test_a_gated_model_needs_the_name_of_a_token() -> None:
    (found,) = messages(workspace(A100, inference=inference("llama-3.1-8b-instruct")))
    assert (
        "inference.preset.presetOptions.modelAccessSecret: is empty, and meta-llama/Llama-3.1-8B-Instruct is" in found
    )

    with_token = {"preset": {"name": "llama-3.1-8b-instruct", "presetOptions": {"modelAccessSecret": "hf"}}}
    assert messages(workspace(A100, inference=with_token)) == []


def test_tuning_names_its_own_preset_field() -> None:
    (found,) = messages(workspace(A100, tuning=tuning("nothing")))
    assert found.startswith("error: tuning.preset.name: 'nothing' is not a preset")

    (found,) = messages(workspace(A100, tuning=tuning("gpt-oss-20b")))
    assert found.startswith("error: tuning.preset.name: gpt-oss-20b cannot be tuned")

    (found,) = messages(workspace(NC6, tuning=tuning("phi-4", "lora")))
    assert found.startswith("warning: resource.instanceType: lora on phi-4 needs about")


def test_an_update_is_checked_for_new_violations_and_a_deletion_is_not_checked() -> None:
    stored = workspace(NC6, inference=inference("falcon-7b"))

    assert check(stored.with_metadata(labels={"a": "b"}), stored) == []
    assert check(stored.with_metadata(deletion_timestamp="2026-01-01T00:00:00Z")) == []
    assert len(check(stored)) == 1


def test_the_cloud_decides_which_names_are_known() -> None:
    assert messages(workspace("g5.xlarge", inference=inference("phi-3-mini-4k-instruct")), cloud="aws") == []
    (found,) = messages(workspace("g5.xlarge", inference=inference("phi-3-mini-4k-instruct")))
    assert "'g5.xlarge' is not a known GPU instance type of azure" in found
