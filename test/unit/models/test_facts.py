"""Facts of models: equal to the catalog, and to calculations by hand for models that are not in it."""

from pathlib import Path

import pytest

from kaito.models import catalog, instance_types
from kaito.models.facts.derive import ModelFacts
from kaito.models.facts.presets import preset_of_facts
from kaito.models.facts.reference import ModelReference
from kaito.models.gpu import GIB
from kaito.models.planning import plan_inference
from kaito.models.preset import Preset
from kaito.models.sizing import Load, vllm_need_per_gpu
from test.support.model_fixtures import document_of, facts_of, fixture_of, fixtures

CATALOG = fixtures("catalog")


def preset_of(path: Path) -> Preset:
    facts = facts_of(path, trust_remote_code=True)
    return preset_of_facts(facts, ModelReference.parse(facts.model))


def test_every_entry_of_the_catalog_with_an_architecture_has_a_fixture() -> None:
    wanted = {preset.repository for preset in catalog.presets() if preset.architecture}

    assert {document_of(path)["model"] for path in CATALOG} == wanted


@pytest.mark.parametrize("path", CATALOG, ids=lambda path: path.stem)
def test_the_facts_are_those_of_the_catalog(path: Path) -> None:
    found = preset_of(path)
    expected = catalog.get(found.repository)
    shape, known = found.architecture, expected.architecture
    assert shape is not None
    assert known is not None

    assert (found.kv_bytes_per_token, found.context) == (expected.kv_bytes_per_token, expected.context)
    assert (found.quantization, found.dtype) == (expected.quantization, expected.dtype)
    assert (shape.layers, shape.heads, shape.kv_heads, shape.head_dim) == (
        known.layers,
        known.heads,
        known.kv_heads,
        known.head_dim,
    )
    assert (shape.attention, shape.kv_lora_rank, shape.qk_rope_head_dim) == (
        known.attention,
        known.kv_lora_rank,
        known.qk_rope_head_dim,
    )
    assert (shape.state_layers, shape.state_bytes_per_layer) == (known.state_layers, known.state_bytes_per_layer)
    assert found.weights_bytes == pytest.approx(expected.weights_bytes, rel=0.005)
    for context in (1, 4096, expected.context):
        assert found.cache_bytes(context) == expected.cache_bytes(context)
    # With several number formats, the number of parameters can be computed only from the headers of the files.
    assert found.parameters == pytest.approx(expected.parameters, rel=0.5 if expected.quantization else 0.06)


@pytest.mark.parametrize("path", CATALOG, ids=lambda path: path.stem)
def test_the_facts_name_the_architecture_of_the_catalog(path: Path) -> None:
    known = catalog.get(document_of(path)["model"]).architecture
    assert known is not None
    # Mistral Large 3 has an encoder for images: vLLM loads it with the class of Pixtral around that of the catalog.
    wrapped = {"MistralLarge3ForCausalLM": "PixtralForConditionalGeneration"}

    assert facts_of(path, trust_remote_code=True).architecture == wrapped.get(known.name, known.name)


def test_copies_beside_the_weights_do_not_count() -> None:
    """The repository of gpt-oss has the weights twice, and that of Mistral 7B in two formats."""
    for model, size in (("openai/gpt-oss-120b", 65248815744), ("mistralai/Mistral-7B-v0.3", 14496080928)):
        path = next(path for path in CATALOG if document_of(path)["model"] == model)
        assert sum(document_of(path)["files"].values()) > 1.9 * size

        assert facts_of(path).weights_bytes == size


H100X8 = "Standard_ND96isr_H100_v5"
A100 = "Standard_NC24ads_A100_v4"

# Model, parameters in 10^9 by its card, bytes per parameter, bytes of cache per token (two vectors x heads x dimension
# x layers x two bytes, unless noted), tokens, instance type, and GPUs that each layer is divided over.
BY_HAND = [
    ("HuggingFaceTB/SmolLM3-3B", 3.075, 2, 2 * 4 * 128 * 36 * 2, 65536, A100, 1),
    ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", 1.100, 2, 2 * 4 * 64 * 22 * 2, 2048, A100, 1),
    ("mistralai/Mixtral-8x7B-Instruct-v0.1", 46.70, 2, 2 * 8 * 128 * 32 * 2, 32768, H100X8, 8),
    ("google/gemma-2-9b-it", 9.242, 2, 2 * 8 * 256 * 42 * 2, 8192, A100, 1),  # 8192 tokens fit into one step: no window
    ("tiiuae/falcon-7b-instruct", 7.217, 2, 2 * 1 * 64 * 32 * 2, 2048, A100, 1),
    ("tiiuae/falcon-40b-instruct", 41.84, 2, 2 * 8 * 64 * 60 * 2, 2048, H100X8, 8),
    ("bigscience/bloom-7b1", 7.069, 2, 2 * 32 * 128 * 30 * 2, 2048, A100, 1),
    ("EleutherAI/gpt-neox-20b", 20.65, 2, 2 * 64 * 96 * 44 * 2, 2048, A100, 1),
    ("databricks/dbrx-instruct", 131.6, 2, 2 * 8 * 128 * 40 * 2, 32768, H100X8, 8),
    ("CohereForAI/c4ai-command-r-v01", 34.98, 2, 2 * 64 * 128 * 40 * 2, 4096, H100X8, 8),
    # A quarter of the layers caches everything, the others 4096 tokens and the 8192 of one step.
    ("CohereForAI/c4ai-command-r7b-12-2024", 8.028, 2, 2 * 8 * 128 * 2 * (8 + 24 * 12288 / 131072), 131072, A100, 1),
    # Latent attention: one vector of 512 and a rotary part of 64 for each layer; every GPU has all of it.
    ("deepseek-ai/DeepSeek-V2-Lite-Chat", 15.71, 2, (512 + 64) * 27 * 2, 163840, A100, 1),
    ("Qwen/Qwen3-30B-A3B-Instruct-2507", 30.53, 2, 2 * 4 * 128 * 48 * 2, 32768, A100, 1),
    ("meta-llama/Llama-4-Scout-17B-16E-Instruct", 108.6, 2, 2 * 8 * 128 * 48 * 2, 131072, H100X8, 8),
    ("zai-org/GLM-4-9B-0414", 9.400, 2, 2 * 2 * 128 * 40 * 2, 32768, A100, 1),
    ("Qwen/Qwen2.5-VL-7B-Instruct", 8.292, 2, 2 * 4 * 128 * 28 * 2, 128000, A100, 1),
    ("llava-hf/llava-1.5-7b-hf", 7.063, 2, 2 * 32 * 128 * 32 * 2, 4096, A100, 1),
    ("allenai/OLMoE-1B-7B-0924-Instruct", 6.919, 2, 2 * 16 * 128 * 16 * 2, 4096, A100, 1),
    ("bigcode/starcoder", 15.82, 2, 2 * 1 * 128 * 40 * 2, 8192, A100, 1),  # files of 32 bits, loaded at 16
    ("ByteDance-Seed/Seed-OSS-36B-Instruct", 36.15, 2, 2 * 8 * 128 * 64 * 2, 32768, H100X8, 8),
    ("swiss-ai/Apertus-8B-Instruct-2509", 8.053, 2, 2 * 8 * 128 * 32 * 2, 65536, A100, 1),
    ("stabilityai/stablelm-2-12b-chat", 12.14, 2, 2 * 8 * 160 * 40 * 2, 4096, A100, 1),
    ("microsoft/phi-2", 2.780, 2, 2 * 32 * 80 * 32 * 2, 2048, A100, 1),
    ("baidu/ERNIE-4.5-21B-A3B-PT", 21.83, 2, 2 * 4 * 128 * 28 * 2, 131072, A100, 1),
    # 15 of 80 blocks in the fixture have no attention.
    ("nvidia/Llama-3_3-Nemotron-Super-49B-v1", 49.87, 2, 2 * 8 * 128 * 64 * 2, 32768, H100X8, 8),
    ("Qwen/QwQ-32B-AWQ", 32.76, 0.59, 2 * 8 * 128 * 64 * 2, 8192, A100, 1),  # embeddings and head at 16 bits
]


@pytest.mark.parametrize(
    ("model", "parameters", "width", "per_token", "context", "instance", "tensor"),
    BY_HAND,
    ids=[row[0] for row in BY_HAND],
)
def test_a_plan_agrees_with_a_calculation_by_hand(
    model: str, parameters: float, width: float, per_token: float, context: int, instance: str, tensor: int
) -> None:
    size = instance_types.get(instance)
    preset = preset_of(fixture_of(model))
    shape = preset.architecture
    assert shape is not None
    divided = 1 if shape.attention == "MLA" else min(tensor, shape.kv_heads)
    by_hand = parameters * 1e9 * width * 1.02 * 1.05 / tensor + 2.3 * GIB + per_token * context / divided

    need = vllm_need_per_gpu(preset, size.gpu, tensor=tensor, load=Load(context=context))
    plan = plan_inference(preset, size)

    assert need == pytest.approx(by_hand, rel=0.05)
    assert (plan.runtime, plan.nodes, plan.preset.repository) == ("vllm", 1, model)


# Model, layers with the whole context, with a window, with a state, bytes of state per request, bytes per token.
HYBRIDS = [
    # 2 x 4096 channels x (3 x 2 bytes of convolution + 16 x 2 bytes of state), 28 of 32 layers.
    ("ai21labs/AI21-Jamba-1.5-Mini", 4, 0, 28, 28 * 8192 * (3 * 2 + 16 * 2), 4 * 2 * 8 * 128 * 2),
    # Convolution over 3072 + 2 x 256 channels; 24 heads x 128 x 256, in each of 44 layers beside attention.
    ("tiiuae/Falcon-H1-7B-Instruct", 44, 0, 44, 44 * (3584 * 3 * 2 + 24 * 128 * 256 * 2), 44 * 2 * 2 * 128 * 2),
    ("ibm-granite/granite-4.0-h-small", 4, 0, 36, 36 * (8448 * 3 * 2 + 128 * 64 * 128 * 2), 4 * 2 * 8 * 128 * 2),
    ("LiquidAI/LFM2-1.2B", 6, 0, 10, 10 * 2048 * 2 * 2, 6 * 2 * 8 * 64 * 2),
    ("moonshotai/Kimi-Linear-48B-A3B-Instruct", 7, 0, 20, 20 * (12288 * 3 * 2 + 32 * 128 * 128 * 4), 7 * 576 * 2),
    ("Qwen/Qwen3-Next-80B-A3B-Instruct", 12, 0, 36, 36 * (8192 * 3 * 2 + 32 * 128 * 128 * 2), 12 * 2 * 2 * 256 * 2),
    ("state-spaces/mamba-2.8b-hf", 0, 0, 64, 64 * 5120 * (3 * 2 + 16 * 2), 0),
    ("google/gemma-3-1b-it", 4, 22, 0, 0, 4 * 2 * 1 * 256 * 2),
    ("google/gemma-3n-E4B-it", 4, 16, 0, 0, 4 * 2 * 2 * 256 * 2),
    ("allenai/Olmo-3-7B-Instruct", 8, 24, 0, 0, 8 * 2 * 32 * 128 * 2),
    ("LGAI-EXAONE/EXAONE-4.0-32B", 16, 48, 0, 0, 16 * 2 * 8 * 128 * 2),
    ("mistralai/Mistral-7B-Instruct-v0.1", 0, 32, 0, 0, 0),
]


@pytest.mark.parametrize(
    ("model", "full", "windowed", "recurrent", "state", "growth"), HYBRIDS, ids=[row[0] for row in HYBRIDS]
)
def test_layers_with_windows_and_states_are_counted(
    model: str, full: int, windowed: int, recurrent: int, state: int, growth: int
) -> None:
    facts = facts_of(fixture_of(model), trust_remote_code=True)

    assert (facts.full_layers, facts.window_layers, facts.state_layers) == (full, windowed, recurrent)
    assert facts.state_layers * facts.state_bytes_per_layer == state
    assert facts.growing_bytes_per_token == growth


EXPERTS = [
    ("mistralai/Mixtral-8x7B-Instruct-v0.1", 8, 2, 0),
    ("deepseek-ai/DeepSeek-V2-Lite-Chat", 64, 6, 2),
    ("Qwen/Qwen3-30B-A3B-Instruct-2507", 128, 8, 0),
    ("moonshotai/Kimi-Linear-48B-A3B-Instruct", 256, 8, 1),
    ("zai-org/GLM-4.5-Air", 128, 8, 1),
    ("baidu/ERNIE-4.5-21B-A3B-PT", 64, 6, 2),
]


@pytest.mark.parametrize(("model", "routed", "active", "shared"), EXPERTS)
def test_experts_are_counted(model: str, routed: int, active: int, shared: int) -> None:
    found = facts_of(fixture_of(model), trust_remote_code=True).experts

    assert found is not None
    assert (found.routed, found.active, found.shared) == (routed, active, shared)


CONTEXTS = [
    ("mistralai/Mistral-Nemo-Instruct-2407", 131072, 0),
    ("deepseek-ai/DeepSeek-V2-Lite-Chat", 163840, 0),  # 40 x 4096, not 40 x 163840
    ("CohereForAI/c4ai-command-r-v01", 131072, 0),  # model_max_length, not max_position_embeddings
    ("microsoft/Phi-3.5-MoE-instruct", 131072, 4096),  # LongRoPE
    ("allenai/Olmo-3-7B-Instruct", 65536, 0),
    ("databricks/dbrx-instruct", 32768, 0),
    ("openai-community/gpt2", 1024, 0),
    ("state-spaces/mamba-2.8b-hf", 2048, 0),  # no length in config.json
]


@pytest.mark.parametrize(("model", "longest", "default"), CONTEXTS)
def test_the_context_is_that_of_the_engine(model: str, longest: int, default: int) -> None:
    facts = facts_of(fixture_of(model))

    assert (facts.context, facts.default_context) == (longest, default)


@pytest.mark.parametrize("path", fixtures("others"), ids=lambda path: path.stem)
def test_the_facts_of_other_models_make_a_preset(path: Path) -> None:
    facts = facts_of(path, trust_remote_code=True)
    preset = preset_of(path)

    assert ModelFacts.model_validate_json(facts.model_dump_json()) == facts
    assert not preset.is_in_catalog
    assert preset.name == document_of(path)["model"].rpartition("/")[2].lower()
    assert preset.cache_bytes(facts.context) >= facts.context * facts.growing_bytes_per_token
    assert (preset.tuning is None) or preset.transformers is not None


def test_there_are_enough_further_models() -> None:
    known = {preset.repository for preset in catalog.presets()}
    names = {document_of(path)["model"] for path in fixtures("others")}

    assert len(names) >= 30
    assert not names & known
    assert len(BY_HAND) >= 20


@pytest.mark.parametrize("path", [path for path in CATALOG if "mistral" not in path.stem], ids=lambda path: path.stem)
def test_the_tokenizer_mode_is_that_of_the_catalog(path: Path) -> None:
    """DeepSeek V3.2 and V4 have no chat template: without the mode of vLLM, conversations are refused.

    That of Mistral's models depends on their files, which the fixtures do not contain.
    """

    def mode(preset: Preset) -> object:
        return preset.vllm.flags.get("tokenizer-mode") if preset.vllm is not None else None

    found = preset_of(path)
    assert mode(found) == mode(catalog.get(found.repository))
