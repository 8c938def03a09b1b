"""What the catalog answers to a name that it cannot serve: the field, the fact, the remedy."""

import pytest

from kaito.models import catalog, instance_types
from kaito.models.errors import NoGpu, UnknownInstanceType, UnknownPreset
from kaito.models.products import gpu_named

PRESETS = [
    (
        "phi-3-mini",
        (
            "'phi-3-mini' is not a preset: choose one of the catalog (did you mean phi-3.5-mini-instruct or "
            "phi-3-mini-4k-instruct or phi-4-mini-instruct?)"
        ),
    ),
    ("zzzz", "'zzzz' is not a preset: choose one of the catalog, for example phi-3-mini-128k-instruct"),
    ("falcon", "'falcon' is not a preset: choose one of the catalog, for example phi-3-mini-128k-instruct"),
    (
        "microsoft/unknown",
        (
            "'microsoft/unknown' is not in the catalog, so its size is unknown: choose a model of the catalog "
            "(did you mean microsoft/phi-4?), or run it through inference.template"
        ),
    ),
    (
        "nope/zz",
        (
            "'nope/zz' is not in the catalog, so its size is unknown: choose a model of the catalog, for example "
            "phi-3-mini-128k-instruct, or run it through inference.template"
        ),
    ),
    ("llama-2-7b", "'llama-2-7b' is removed and no longer served: use llama-3.1-8b-instruct"),
    ("phi-2", "'phi-2' is deprecated and no longer served: use phi-3-mini-128k-instruct"),
    (
        "falcon-7b",
        (
            "'falcon-7b' is removed and no longer served: use a preset such as phi-3-mini-128k-instruct, or "
            "inference.template"
        ),
    ),
]


@pytest.mark.parametrize(("name", "message"), PRESETS, ids=[name for name, _ in PRESETS])
@pytest.mark.parametrize("field", ["inference.preset.name", "tuning.preset.name"])
def test_a_preset_that_cannot_be_served_is_rejected_with_a_remedy(name: str, message: str, field: str) -> None:
    with pytest.raises(UnknownPreset) as caught:
        catalog.get(name, field=field)

    assert (caught.value.field, caught.value.message, caught.value.reason) == (field, message, "UnknownPreset")


def test_the_field_is_that_of_inference_unless_named() -> None:
    with pytest.raises(UnknownPreset) as caught:
        catalog.get("phi-2")
    assert caught.value.field == "inference.preset.name"


@pytest.mark.parametrize("name", ["phi-4", " PHI-4 ", "microsoft/phi-4", "Microsoft/Phi-4"])
def test_a_preset_answers_to_its_names_in_any_case(name: str) -> None:
    assert catalog.get(name).name == "phi-4"


INSTANCE_TYPES = [
    (
        "Standard_D8s_v5",
        NoGpu,
        "'Standard_D8s_v5' has no GPU: choose a GPU size, for example Standard_NV36ads_A10_v5",
    ),
    (
        "Standard_NC6s_v33",
        UnknownInstanceType,
        (
            "'Standard_NC6s_v33' is not a known GPU instance type of azure: did you mean Standard_NC6s_v3 or "
            "Standard_NC24s_v3 or Standard_NC12s_v3?"
        ),
    ),
    (
        "nonsense",
        UnknownInstanceType,
        "'nonsense' is not a known GPU instance type of azure: choose one such as Standard_NV36ads_A10_v5",
    ),
]


@pytest.mark.parametrize(("name", "error", "message"), INSTANCE_TYPES, ids=[row[0] for row in INSTANCE_TYPES])
def test_an_instance_type_that_cannot_be_used_is_rejected_with_a_remedy(
    name: str, error: type[NoGpu | UnknownInstanceType], message: str
) -> None:
    with pytest.raises(error) as caught:
        instance_types.get(name)
    assert (caught.value.field, caught.value.message, caught.value.reason) == (
        "resource.instanceType",
        message,
        "UnknownInstanceType",
    )


def test_names_are_those_of_azure_unless_a_cloud_is_named() -> None:
    assert instance_types.find("Standard_NC24ads_A100_v4") == instance_types.find("standard_nc24ADS_a100_v4 ", "azure")
    assert instance_types.find("g5.xlarge") is None
    assert instance_types.find("g5.xlarge", "aws") is not None
    assert instance_types.instance_types() == instance_types.instance_types("azure")
    assert instance_types.current() == instance_types.current("azure")
    assert instance_types.cloud_name("standard_nc24ads_a100_v4") == "Standard_NC24ads_A100_v4"
    assert instance_types.has_gpu("Standard_NC24ads_A100_v4")
    assert instance_types.may_exist("Standard_D2s_v5")
    assert not instance_types.may_exist("g5.xlarge")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Standard_NC6s_v3", " standard_nc6S_V3", True),
        ("new-size", "NEW-SIZE", True),
        ("Standard_NC6s_v3", "Standard_NC12s_v3", False),
        ("new-size", "other-size", False),
    ],
)
def test_two_names_are_of_one_size(one: str, other: str, *, same: bool) -> None:
    assert instance_types.same_size(one, other) is same


@pytest.mark.parametrize(
    ("name", "gpu"),
    [
        ("NVIDIA-A100-SXM4-80GB", "NVIDIA A100"),
        ("Tesla-T4", "NVIDIA T4"),
        ("A100", "NVIDIA A100"),
        ("GeForce RTX 4090", "NVIDIA RTX 4090"),
        ("RTX 4090", "NVIDIA RTX 4090"),
        ("a toaster", None),
        ("", None),
    ],
)
def test_a_gpu_is_known_by_its_words_without_the_brand(name: str, gpu: str | None) -> None:
    found = gpu_named(name)
    assert (found.name if found else None) == gpu
