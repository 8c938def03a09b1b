"""Admission looks at every part of a Workspace: counts, adapters, tokens, templates, clouds and existing nodes."""

from typing import Any
from unittest.mock import Mock

import pytest

from kaito.api import Workspace
from kaito.api.workspace.validation import NodeApi
from kaito.models import catalog
from kaito.models.admission import check, instance_type_of, preset_of, wanted_runtime
from kaito.models.errors import NoGpu, UnknownInstanceType
from kaito.models.instance_types import Cloud

V100, A10, A100 = "Standard_NC6s_v3", "Standard_NV36ads_A10_v5", "Standard_NC24ads_A100_v4"
UNKNOWN = "'Standard_NC6s_v4' is not a known GPU instance type of azure"


def workspace(instance: str, annotations: dict[str, str] | None = None, count: int = 1, **parts: Any) -> Workspace:
    return Workspace.model_validate(
        {
            "metadata": {"name": "w", "annotations": annotations or {}},
            "resource": {
                "instanceType": instance,
                "count": count,
                "labelSelector": {"matchLabels": {"apps": "w"}},
            },
            **parts,
        }
    )


def serve(name: str, instance: str = A100, *, count: int = 1, runtime: str = "", **more: Any) -> Workspace:
    annotations = {"kaito.sh/runtime": runtime} if runtime else {}
    return workspace(instance, annotations, count, inference={"preset": {"name": name}, **more})


def tune(name: str, instance: str = A100, **preset: Any) -> Workspace:
    return workspace(
        instance,
        tuning={
            "preset": {"name": name, **preset},
            "method": "qlora",
            "input": {"urls": ["https://datasets.example/a"]},
            "output": {"image": "a", "imagePushSecret": "b"},
        },
    )


def template(instance: str) -> Workspace:
    return workspace(instance, inference={"template": {"spec": {"containers": [{"name": "a"}]}}})


def fields(
    found: Workspace, old: Workspace | None = None, *, node_api: NodeApi = "machine", cloud: Cloud = "azure"
) -> list[str]:
    return [f"{v.severity} {v.field}" for v in check(found, old, node_api=node_api, cloud=cloud)]


INSTANCE = "error resource.instanceType"


@pytest.mark.parametrize(
    ("found", "node_api", "expected"),
    [
        (serve("phi-4", "nonsense"), "machine", [INSTANCE]),
        (serve("phi-4", "nonsense"), "nodeclaim", [INSTANCE]),
        (serve("phi-4", "nonsense"), "byo", []),
        (serve("phi-4", ""), "machine", []),
        (serve("phi-4", ""), "byo", []),
        (serve("nothing", "nonsense"), "byo", ["error inference.preset.name"]),
        (serve("nothing", "nonsense"), "machine", ["error inference.preset.name", INSTANCE]),
    ],
)
def test_the_instance_type_is_looked_at_where_nodes_are_created(
    found: Workspace, node_api: NodeApi, expected: list[str]
) -> None:
    assert fields(found, node_api=node_api) == expected


def test_an_update_answers_for_what_it_breaks() -> None:
    good, bad = serve("phi-4"), serve("phi-4", "nonsense")
    assert fields(bad, good) == [INSTANCE]
    assert fields(bad, bad) == []
    assert fields(good, bad) == []
    assert fields(serve("nothing", "nonsense"), bad) == ["error inference.preset.name"]


def test_an_update_is_compared_by_the_rules_of_the_same_nodes() -> None:
    stored, edited = serve("phi-4", "nonsense"), serve("nothing", "nonsense")
    assert fields(edited, stored, node_api="byo") == ["error inference.preset.name"]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_several_nodes_are_several_copies(count: int) -> None:
    messages = [str(violation) for violation in check(serve("phi-4", count=count))]
    expected = (
        f"resource.count: is {count}: {count} nodes are used, and each serves a whole copy of phi-4: set it "
        "to 1 for one copy"
    )
    assert messages == ([expected] if count > 1 else [])


def test_warnings_of_the_plan_follow_that_of_the_count() -> None:
    found = workspace(
        V100, {"kaito.sh/bypass-resource-checks": "true"}, 2, inference={"preset": {"name": "phi-3-medium-4k-instruct"}}
    )
    assert fields(found) == ["warning resource.count", "warning resource.instanceType"]


@pytest.mark.parametrize(
    ("value", "runtime"),
    [
        ("vllm", "vllm"),
        ("VLLM", "vllm"),
        (" Transformers ", "transformers"),
        ("transformers", "transformers"),
        ("torch", None),
        ("", None),
    ],
)
def test_the_runtime_is_read_in_any_case(value: str, runtime: str | None) -> None:
    assert wanted_runtime(serve("phi-4", runtime=value)) == runtime


def test_a_workspace_without_annotations_wants_no_runtime() -> None:
    assert wanted_runtime(serve("phi-4")) is None


def test_the_wanted_runtime_decides_what_is_rejected() -> None:
    assert fields(serve("phi-3-mini-4k-instruct", V100)) == []
    assert fields(serve("phi-3-mini-4k-instruct", V100, runtime="vllm")) == [
        "error metadata.annotations[kaito.sh/runtime]"
    ]
    assert fields(serve("granite-4.1-8b", A10, runtime="transformers")) == [
        "error metadata.annotations[kaito.sh/runtime]"
    ]


def test_adapters_take_memory() -> None:
    def with_adapters(number: int) -> Workspace:
        adapters = [{"source": {"name": f"a{index}", "image": "i"}} for index in range(number)]
        return serve("granite-4.1-8b", A10, runtime="vllm", adapters=adapters)

    assert fields(with_adapters(0)) == []
    assert fields(with_adapters(10)) == [INSTANCE]


def test_a_configuration_may_make_a_large_model_fit() -> None:
    assert fields(serve("deepseek-r1-0528", A10)) == [INSTANCE]
    assert fields(serve("deepseek-r1-0528", A10, config="smaller")) == []


TOKEN = "error inference.preset.presetOptions.modelAccessSecret"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (serve("gemma-3-4b-instruct"), [TOKEN]),
        (serve("phi-4"), []),
        (serve("qwen3.5-4b"), []),
        (
            workspace(A100, inference={"preset": {"name": "gemma-3-4b-instruct", "accessMode": "private"}}),
            [],
        ),
        (
            workspace(
                A100,
                inference={"preset": {"name": "gemma-3-4b-instruct", "presetOptions": {"modelAccessSecret": "hf"}}},
            ),
            [],
        ),
    ],
)
def test_a_gated_download_needs_a_token(found: Workspace, expected: list[str]) -> None:
    assert fields(found) == expected


@pytest.mark.parametrize(
    ("gated", "image", "expected"),
    [(True, "", True), (True, "0.2.0", False), (False, "", False)],
)
def test_a_gated_download_needs_a_token_for_tuning_too(
    monkeypatch: pytest.MonkeyPatch, image: str, *, gated: bool, expected: bool
) -> None:
    preset = catalog.get("phi-4").model_copy(update={"gated": gated, "image_tag": image})
    monkeypatch.setattr(catalog, "get", Mock(return_value=preset))

    found = check(tune("phi-4"))
    assert [v.field for v in found] == ["tuning.preset.presetOptions.modelAccessSecret"] * expected
    remedy = "microsoft/phi-4 is gated: name a Secret whose key HF_TOKEN contains a token"
    assert all(remedy in violation.message for violation in found)
    assert check(tune("phi-4", accessMode="private")) == []
    assert check(tune("phi-4", presetOptions={"modelAccessSecret": "hf"})) == []


@pytest.mark.parametrize(
    ("instance", "message"),
    [
        ("Standard_D8s_v5", None),
        ("Standard_NC999_Z900_v9", None),
        (A100, None),
        ("nonsense", "is not a known GPU instance type of azure"),
    ],
)
def test_a_template_runs_on_any_size_that_may_exist(instance: str, message: str | None) -> None:
    assert [message in str(v) for v in check(template(instance)) if message] == [True] * bool(message)
    assert fields(template(instance)) == ([INSTANCE] if message else [])


def test_a_size_that_may_exist_has_no_gpu_to_plan_for() -> None:
    assert instance_type_of(template("Standard_D8s_v5"), "azure") is None
    with pytest.raises(NoGpu):
        instance_type_of(serve("phi-4", "Standard_D8s_v5"), "azure")
    with pytest.raises(UnknownInstanceType):
        instance_type_of(tune("phi-4", "Standard_NC999_Z900_v9"), "azure")
    known = instance_type_of(serve("phi-4", A100.upper()), "azure")
    assert known is not None
    assert known.name == A100


def test_the_cloud_decides_which_sizes_exist() -> None:
    assert fields(serve("phi-4", "g5.xlarge"), cloud="azure") == [INSTANCE]
    (warned,) = check(serve("phi-4", "g5.xlarge"), cloud="aws")
    assert (warned.severity, warned.field) == ("warning", "resource.instanceType")
    assert warned.message.startswith("2 nodes are used for one copy of phi-4: a copy is divided over 2 nodes")
    (refused,) = check(serve("deepseek-r1-0528", "g5.xlarge"), cloud="aws")
    assert "for example p5e.48xlarge" in refused.message
    assert fields(serve("phi-4-mini-instruct", "g5.xlarge"), cloud="aws") == []


def test_a_preset_is_named_by_inference_or_by_tuning() -> None:
    served, tuned = preset_of(serve("phi-4")), preset_of(tune("phi-4"))
    assert served is not None
    assert served is tuned
    assert served.name == "phi-4"
    assert preset_of(template(A100)) is None
    assert fields(tune("nothing")) == ["error tuning.preset.name"]
