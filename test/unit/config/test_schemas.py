"""The configuration schemas that controller and pod share report invalid files with message and line."""

import json
import subprocess
import sys
from importlib import resources

import pytest
from kaito_config import ConfigError, EngineSettings, TrainingConfig, parse_inference, parse_training
from kaito_config.document import MAX_CHARACTERS
from kaito_config.vllm_flags import PARSERS

BOMB = "\n".join(
    [
        "a: &a [x,x,x,x,x,x,x,x,x,x]",
        *(f"{n}: &{n} [{','.join([f'*{p}'] * 10)}]" for p, n in zip("abcde", "bcdef", strict=True)),
    ]
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("a: [", "not YAML: did not find expected node content", id="not YAML"),
        pytest.param("vlm: {}", "vlm: unknown key, did you mean vllm? (line 1, column 1)", id="unknown key"),
        pytest.param("a: b: c", "mapping values are not allowed in this context (line 1, column 5)", id="line"),
        pytest.param("vllm:\n  max_modl_len: 3", "did you mean max-model-len? (line 2, column 3)", id="near flag"),
        pytest.param("vllm: {tensor-parallel-size: x}", "integer from 1 to 1024, found 'x'", id="not a number"),
        pytest.param("vllm: {tensor-parallel-size: 0}", "integer from 1 to 1024, found 0", id="zero ranks"),
        pytest.param("vllm: {tensor-parallel-size: true}", "found True", id="a boolean instead of a number"),
        pytest.param("vllm: {tensor-parallel-size: 1.5}", "found 1.5", id="half a rank"),
        pytest.param("vllm: {gpu-memory-utilization: 1.2}", "above 0 and at most 1, found 1.2", id="more than all"),
        pytest.param("vllm: {gpu-memory-utilization: .nan}", "above 0 and at most 1, found nan", id="nan"),
        pytest.param("vllm: {max-model-len: -5}", "number of tokens such as 8192 or 8K, or auto", id="context"),
        pytest.param("vllm: {max-model-len: 1, max_model_len: 2}", "is the same flag as max-model-len", id="two names"),
        pytest.param('vllm: {enforce-eager: "yes"}', "must be true or false, found 'yes'", id="boolean as text"),
        pytest.param("vllm: {kv-cache-dtype: int3}", "must be one of auto, ", id="choice"),
        pytest.param("vllm: {port: 8000}", "cannot be set: probes and the Service use port 5000", id="port"),
        pytest.param("vllm: {kaito-max-probe-steps: 1}", "the controller sets the flags of the wrapper", id="own flag"),
        pytest.param("vllm: {--max-model-len: 1}", "without leading dashes", id="dashes"),
        pytest.param("vllm: 3", "vllm: input should be a valid dictionary, found 3 (line 1, column 1)", id="type"),
        pytest.param("transformers: {max-batch-size: 0}", "greater than or equal to 1, found 0 (line 1", id="range"),
        pytest.param("transformers: {max_bacth_size: 1}", "did you mean max_batch_size?", id="near option"),
        pytest.param("transformers: {port: 80}", "cannot be set", id="server port"),
        pytest.param("transformers: {load_in_4bit: true, load_in_8bit: true}", "exclude each other", id="two widths"),
        pytest.param("vllm: {tp: 4}", "is a short option: write tensor-parallel-size (line 1", id="short option"),
        pytest.param("vllm: {model: other/model}", "cannot be set: the preset determines it", id="another model"),
        pytest.param("vllm: {quantization: none-such}", "must be one of auto-round, ", id="quantization"),
        pytest.param("vllm: {tool-call-parser: mistrall}", "no parser 'mistrall', did you mean mistral?", id="parser"),
        pytest.param("vllm: {reasoning_parser: none-such}", "use one of cohere_command3, ", id="reasoning parser"),
        pytest.param("vllm: {speculative-config: '{\"model\": 1'}", "is not JSON (Expecting ',' delimiter", id="JSON"),
        pytest.param("vllm: {max-num-seqs: 99999}", "more than the 16384 tokens of one step", id="sequences"),
        pytest.param(
            "vllm: {max-num-seqs: 64, max_num_batched_tokens: 32}", "more than the 32 tokens of one step", id="step"
        ),
        pytest.param("transformers: {torch_dtype: float99}", "transformers.torch_dtype: is 'float99'", id="format"),
        pytest.param("transformers: {device-map: gpu}", "transformers.device-map: is 'gpu': use auto", id="device"),
        pytest.param(
            "transformers: {pretrained_model_name_or_path: x}", "the preset determines it", id="other weights"
        ),
        pytest.param("max_probe_steps: true", "must be a number, not true", id="boolean"),
        pytest.param("max_probe_steps: 9999999999", "less than or equal to 64", id="unbounded probes"),
        pytest.param("kv_cache_cpu_memory_utilization: 2", "less than or equal to 1", id="share"),
        pytest.param("1: 2", "the key '1' is not text", id="key of another type"),
        pytest.param("{[a]: 2}", "the key a collection is not text", id="key of a collection"),
        pytest.param("vllm: {}\nvllm: {}", "duplicate of the key in line 1: remove one (line 2, column 1)", id="twice"),
        pytest.param("vllm: &a {x: [*a]}", "refers to itself", id="loop"),
        pytest.param(BOMB, "has more than 20000 values, aliases included", id="alias bomb"),
        pytest.param("[" * 60_000, "is nested deeper than 32 levels", id="depth"),
        pytest.param("#" * (MAX_CHARACTERS + 1), "is too long", id="length"),
        pytest.param("d: 2024-13-45", "not YAML: month must be in 1..12", id="impossible date"),
        pytest.param("a: !!python/object:os.system x", "not YAML: could not determine a constructor", id="tag"),
        pytest.param("a: 1\n---\nb: 2", "expected a single document", id="two documents"),
        pytest.param("\x00", "not YAML", id="control character"),
        pytest.param("- 1", "must be a mapping with the sections vllm and transformers", id="list"),
    ],
)
def test_wrong_inference_files_name_the_key_and_the_line(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_inference(text)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "{tool-call-parser: mine, tool-parser-plugin: /plugins/mine.py}",
        "{tool-call-parser: null, reasoning-parser: deepseek_r1}",
        "{speculative-config: {method: ngram}}",
        "{hf-overrides: '{\"rope_theta\": 1}', limit-mm-per-prompt: image=2, compilation-config: 3}",
    ],
)
def test_parsers_of_plugins_and_every_form_of_json_are_passed_on(text: str) -> None:
    parse_inference(f"vllm: {text}")


def test_every_parser_of_the_catalog_is_known() -> None:
    text = resources.files("kaito.models").joinpath("data", "parsers.json").read_text(encoding="utf-8")
    table = json.loads(text)
    for kind, flag in (("tool_call", "tool-call-parser"), ("reasoning", "reasoning-parser")):
        used = {*table[kind]["prefixes"].values(), *table[kind]["architectures"].values()}
        assert used - {""} <= PARSERS[flag][1]


@pytest.mark.parametrize("text", ["", "# only a comment", "vllm:", "vllm: {}\ntransformers:", "max_probe_steps: 0"])
def test_empty_files_and_sections_set_nothing(text: str) -> None:
    assert parse_inference(text).engine() == EngineSettings()


def test_flags_for_sizing_are_read_in_every_spelling() -> None:
    parsed = parse_inference(
        "vllm:\n  max_model_len: 32K\n  gpu-memory-utilization: '0.5'\n  tensor-parallel-size: 2\n"
        "  max-num-seqs: 8\n  kv-cache-dtype: fp8\n  some-flag-of-a-later-release: 1\n  quantization: null\n"
    )
    assert parsed.engine() == EngineSettings(
        max_model_len=32768, gpu_memory_utilization=0.5, tensor_parallel_size=2, max_num_seqs=8, kv_cache_dtype="fp8"
    )
    assert parse_inference("vllm: {max-model-len: auto}").engine().max_model_len is None
    assert parse_inference("vllm: {max-model-len: 2k}").engine().max_model_len == 2000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("training_config: {LoraCnfig: {}}", "training_config.LoraCnfig: unknown key, did you mean LoraConfig?"),
        ("training_config: {LoraConfig: {r: many}}", "training_config.LoraConfig.r: input should be a valid integer"),
        ("training_config: {LoraConfig: {lora_alpha: .inf}}", "finite number"),
        ("training_config: {TrainingArguments: {learning_rat: 1}}", "did you mean learning_rate?"),
        ("training_config: {TrainingArguments: {deepspeed: x}}", "cannot be set: the tuning job decides it"),
        ("training_config: {TrainingArguments: {bf16: true, fp16: true}}", "bf16 and fp16 exclude each other"),
        ("", "the only top-level key must be training_config, found an empty document"),
        ("training_config: 3", "training_config: input should be a valid dictionary"),
    ],
)
def test_wrong_training_files_name_the_key(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_training(text, TrainingConfig)
    assert words in str(refused.value)


def test_method_and_quantization_must_agree() -> None:
    unquantized = parse_training("training_config: {QuantizationConfig: {load_in_4bit: false}}", TrainingConfig)
    with pytest.raises(ConfigError, match="method qlora needs"):
        unquantized.bits("qlora")
    quantized = parse_training("training_config: {QuantizationConfig: {load_in_4bit: true}}", TrainingConfig)
    with pytest.raises(ConfigError, match=r"use method qlora"):
        quantized.bits("lora")


def test_the_package_imports_neither_kaito_nor_the_serving_software() -> None:
    command = (
        "import sys, kaito_config; "
        "print(sorted({m.partition('.')[0] for m in sys.modules} & {'kaito', 'kaito_presets', 'torch', 'vllm'}))"
    )
    found = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("ModelConfig: {torch_dtype: float99}", "ModelConfig.torch_dtype: is 'float99': use auto, bfloat16"),
        ("QuantizationConfig: {bnb_4bit_compute_dtype: x}", "bnb_4bit_compute_dtype: is 'x'"),
        ("TrainingArguments: {optim: adamw_trch}", "'adamw_trch' is not known, did you mean adamw_torch?"),
        ("TrainingArguments: {lr_scheduler_type: zzz}", "'zzz' is not known: use one of constant, "),
        ("TrainingArguments: {adam_beta1: hello}", "adam_beta1: must be a number, found 'hello'"),
        ("TrainingArguments: {output_dir: a/../../b}", "'a/../../b' leaves the directory of the run"),
        ("DatasetConfig: {dataset_path: ../x}", "'../x' leaves the directory of the run"),
    ],
)
def test_values_that_a_run_would_reject_on_the_node_are_rejected_before(section: str, words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_training(f"training_config: {{{section}}}", TrainingConfig)
    assert words in str(raised.value)
    assert "(line 1, column " in str(raised.value)


@pytest.mark.parametrize(
    "section",
    [
        "ModelConfig: {torch_dtype: torch.bfloat16}",
        "TrainingArguments: {optim: paged_adamw_8bit, adam_epsilon: 1e-8, output_dir: out, lr_scheduler_type: cosine}",
        "DatasetConfig: {dataset_path: data/../data/x.parquet}",
    ],
)
def test_values_that_a_run_takes_pass(section: str) -> None:
    assert isinstance(parse_training(f"training_config: {{{section}}}", TrainingConfig), TrainingConfig)
