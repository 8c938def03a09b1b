"""Linear layers in 16 bits with computation in float32, for CPUs without bfloat16 instructions."""

import importlib
from pathlib import Path
from typing import Any

import pytest
from kaito_presets.inference.backend import cpu_linear
from kaito_presets.serving.adapters import find_adapters
from real_model import open_tiny, row, run

pytestmark = pytest.mark.model

PROMPT = "Tell me about Tuscany and its wine"


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU without bfloat16 instructions, whatever this one has."""
    torch: Any = importlib.import_module("torch")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)


@pytest.fixture(scope="module")
def half(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with weights that bfloat16 represents exactly, stored in float32."""
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    folder = tmp_path_factory.mktemp("rounded")
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    model.float().save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_converted_model_has_the_tokens_of_float32(half: Path, dtype: str) -> None:
    expected = open_tiny(half, torch_dtype="float32")
    model = open_tiny(half, torch_dtype=dtype)
    inner: Any = model._model  # pyright: ignore[reportPrivateUsage]
    assert any(isinstance(module, cpu_linear.PackedLinear) for module in inner.modules())
    assert model.info.dtype == "float32"
    prompts = [PROMPT, "Paris", "How do I serve a model? " * 8]
    assert run(model, [row(model, text) for text in prompts]) == run(
        expected, [row(expected, text) for text in prompts]
    )


@pytest.mark.usefixtures("emulated")
def test_adapters_of_a_converted_model(half: Path, tmp_path: Path) -> None:
    torch: Any = importlib.import_module("torch")
    peft: Any = importlib.import_module("peft")
    transformers: Any = importlib.import_module("transformers")
    torch.manual_seed(3)
    base: Any = transformers.AutoModelForCausalLM.from_pretrained(half)
    config = peft.LoraConfig(r=4, lora_alpha=16, target_modules=["qkv_proj", "o_proj"], init_lora_weights=False)
    peft.get_peft_model(base, config).save_pretrained(str(tmp_path / "one"))
    found = find_adapters(tmp_path, {"one": 0.5})
    expected = open_tiny(half, found, torch_dtype="float32")
    model = open_tiny(half, found, torch_dtype="bfloat16")
    for adapter in (None, "", "one"):
        tokens = run(model, [row(model, PROMPT, adapter=adapter)])
        assert tokens == run(expected, [row(expected, PROMPT, adapter=adapter)])


def test_model_is_left_alone_where_the_conversion_does_not_help(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """float32 models, CPUs with the instructions, too little memory, and weights beyond the range of float16."""
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    assert not cpu_linear.is_faster(model)
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert not cpu_linear.is_faster(model)
    monkeypatch.setattr(cpu_linear, "MEMORY_SHARE", 0.0)
    assert not cpu_linear.convert(model)
    monkeypatch.setattr(cpu_linear, "MEMORY_SHARE", 0.5)
    with torch.no_grad():
        model.lm_head.weight[0, 0] = 1e6
    assert not cpu_linear.convert(model)
    assert model.dtype == torch.bfloat16
    assert not any(isinstance(module, cpu_linear.PackedLinear) for module in model.modules())
