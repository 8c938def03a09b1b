"""Schema of `training_config.yaml`: sections and keys with type, default and meaning.

The sections are those of upstream Kaito (v0.3 to v0.12). Unknown sections and keys are errors that name `section.key`.
TrainingArguments accepts all other keys of the transformers library as well.
"""

import math
import posixpath
from collections.abc import Iterator
from typing import Any, Final, Literal, TypeVar

from pydantic import ConfigDict, Field, model_validator

from kaito_config.document import ConfigError, Problem, is_mapping, load, nearest, without_nulls
from kaito_config.schema import StrictModel, number_format_problem, validate
from kaito_config.training_arguments import LIBRARY_KEYS, NUMBERS, OPTIMIZERS, REFUSED_KEYS, SCHEDULES

Method = Literal["lora", "qlora"]

TRAINING_KEY: Final = "training_config.yaml"
"""Key of the ConfigMap that holds the file."""

_SECTION: Final = "training_config"


class ModelSection(StrictModel):
    """ModelConfig: how the base model is loaded."""

    pretrained_model_name_or_path: str | None = Field(
        default=None, description="directory or id; --model takes precedence"
    )
    torch_dtype: str | None = Field(default=None, description="bfloat16, float16 or float32; default: the checkpoint's")
    device_map: str | dict[str, Any] = Field(default="auto", description="auto or cpu")
    local_files_only: bool | None = Field(
        default=None, description="true forbids downloads (token: HF_TOKEN); default: true for a directory"
    )
    revision: str | None = Field(default=None, description="branch, tag or commit")
    trust_remote_code: bool = Field(default=False, description="run Python code of the model repository")
    chat_template: str | None = Field(
        default=None, description="file or inline Jinja for tokenizers without a template"
    )
    cache_dir: str | None = Field(default=None, description="download cache")
    force_download: bool = Field(default=False, description="download again")


class QuantizationSection(StrictModel):
    """QuantizationConfig: bitsandbytes, for qlora."""

    quant_method: Literal["bitsandbytes"] = "bitsandbytes"
    load_in_4bit: bool | None = Field(default=None, description="default: true for qlora, unless load_in_8bit")
    load_in_8bit: bool = False
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = Field(default="nf4", description="fp4 needs a GPU")
    bnb_4bit_compute_dtype: str = Field(default="bfloat16", description="number format of the products")
    bnb_4bit_use_double_quant: bool = Field(default=True, description="quantize the scales too")
    llm_int8_threshold: float = 6.0
    llm_int8_skip_modules: list[str] | None = None
    llm_int8_enable_fp32_cpu_offload: bool = False
    llm_int8_has_fp16_weight: bool = False

    @model_validator(mode="after")
    def _one_width(self) -> "QuantizationSection":
        if self.load_in_4bit and self.load_in_8bit:
            raise ValueError("load_in_4bit and load_in_8bit exclude each other")
        return self


class LoraSection(StrictModel):
    """LoraConfig: the shape of the adapter (PEFT)."""

    r: int = Field(default=8, ge=1, description="rank")
    lora_alpha: float = Field(default=8, gt=0, description="the update is scaled by lora_alpha / r")
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: list[str] | str | None = Field(
        default=None, description="names of linear layers; default: all of them but the output head"
    )
    bias: Literal["none", "all", "lora_only"] = "none"
    init_lora_weights: bool | str = True
    use_rslora: bool = Field(default=False, description="scale by lora_alpha / sqrt(r)")
    use_dora: bool = Field(default=False, description="also learn magnitudes (DoRA)")
    modules_to_save: list[str] | None = Field(default=None, description="modules trained and saved whole")
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    rank_pattern: dict[str, int] = Field(default_factory=dict)
    alpha_pattern: dict[str, float] = Field(default_factory=dict)
    fan_in_fan_out: bool = False


class TrainingSection(StrictModel):
    """TrainingArguments: the training loop (transformers). Declares usual keys, and defaults other than the
    library's."""

    model_config = ConfigDict(extra="allow")

    output_dir: str | None = Field(default=None, description="--output-dir takes precedence; must lie below --base-dir")
    num_train_epochs: float = Field(default=3.0, gt=0)
    max_steps: int = Field(default=-1, ge=-1, description="overrides num_train_epochs when positive")
    per_device_train_batch_size: int = Field(default=1, ge=1, description="library: 8")
    per_device_eval_batch_size: int = Field(default=1, ge=1, description="library: 8")
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    learning_rate: float = Field(
        default=2e-4, gt=0, description="library: 5e-5; 2e-4 is the usual rate of LoRA (QLoRA paper)"
    )
    lr_scheduler_type: str = "linear"
    warmup_steps: float = Field(default=0, ge=0, description="below 1: a share of all steps")
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, ge=0)
    optim: str = Field(default="adamw_torch", description="library: adamw_torch_fused")
    seed: int = 42
    logging_steps: float = Field(default=1, gt=0, description="library: 500")
    save_strategy: Literal["no", "epoch", "steps"] = Field(default="steps", description="no: a killed run starts over")
    save_steps: float = Field(default=100, gt=0, description="library: 500")
    save_total_limit: int | None = Field(default=2, ge=1, description="checkpoints kept")
    gradient_checkpointing: bool = Field(default=True, description="recompute activations: less memory, a third slower")
    bf16: bool | None = Field(default=None, description="mixed precision; default: as torch_dtype and the GPU allow")
    fp16: bool | None = Field(default=None, description="the same for float16")
    use_cpu: bool | None = Field(default=None, description="default: true where there is no GPU")
    max_length: int = Field(
        default=1024, ge=8, description="longer examples are cut; bounds the memory (TRL's key and default)"
    )

    @model_validator(mode="after")
    def _one_precision(self) -> "TrainingSection":
        if self.bf16 and self.fp16:
            raise ValueError("bf16 and fp16 exclude each other")
        return self

    def extra_keys(self) -> dict[str, Any]:
        """Returns the keys that are passed to the library unchecked."""
        return dict(self.model_extra or {})


class CollatorSection(StrictModel):
    """DataCollator: how examples are combined into batches."""

    mlm: bool = Field(
        default=False, description="accepted for upstream's files and ignored: causal models have no masked tokens"
    )
    pad_to_multiple_of: int | None = Field(default=None, ge=1)


class DatasetSection(StrictModel):
    """DatasetConfig: files and columns of the data set."""

    dataset_path: str | None = Field(
        default=None, description="one file below --base-dir instead of everything in --data-dir"
    )
    dataset_extension: Literal["parquet", "arrow", "json", "jsonl", "csv"] | None = Field(
        default=None, description="format of the files, if their names do not determine it"
    )
    shuffle_dataset: bool = True
    shuffle_seed: int = 42
    train_test_split: float = Field(
        default=1.0, gt=0, le=1, description="share for training; the rest is for evaluation"
    )
    messages_column: str | None = Field(default=None, description="conversations: a list of {role, content}")
    instruction_column: str | None = Field(default=None, description="put before the context, with a blank line")
    context_column: str | None = Field(default=None, description="the prompt; only the response is learned")
    response_column: str | None = Field(default=None, description="the answer; without a context column: plain text")
    apply_chat_template: bool | None = Field(
        default=None,
        description="whether a question and its answer are trained as a conversation, in the model's chat template; "
        "default: if the model has a template and the question contains no marks of one",
    )


class TrainingConfig(StrictModel):
    """Content of the file below the key `training_config`."""

    ModelConfig: ModelSection = Field(default_factory=ModelSection)
    QuantizationConfig: QuantizationSection = Field(default_factory=QuantizationSection)
    LoraConfig: LoraSection = Field(default_factory=LoraSection)
    TrainingArguments: TrainingSection = Field(default_factory=TrainingSection)
    DataCollator: CollatorSection = Field(default_factory=CollatorSection)
    DatasetConfig: DatasetSection = Field(default_factory=DatasetSection)

    def bits(self, method: Method) -> int | None:
        """Returns the bits of a quantized weight; None if weights are not quantized.

        Raises:
            ConfigError: QuantizationConfig contradicts the method.
        """
        section = self.QuantizationConfig
        if method == "lora":
            if section.load_in_4bit or section.load_in_8bit:
                raise _contradiction("method lora with QuantizationConfig.load_in_*: use method qlora")
            return None
        if section.load_in_8bit:
            return 8
        if section.load_in_4bit is False:
            raise _contradiction("method qlora needs QuantizationConfig.load_in_4bit or load_in_8bit")
        return 4


ConfigT = TypeVar("ConfigT", bound=TrainingConfig)


def parse_training(text: str, model: type[ConfigT]) -> ConfigT:
    """Parses and validates the text of a `training_config.yaml`.

    Args:
        text: content of the file.
        model: `TrainingConfig`, or a class derived from it.

    Raises:
        ConfigError: the text is not YAML, or has wrong keys or values, which are listed as `section.key` with their
        lines.
    """
    document = load(text)
    value = document.value
    if not is_mapping(value) or set(value) != {_SECTION}:
        found = sorted(value) if is_mapping(value) else _kind(value)
        raise ConfigError([Problem(f"the only top-level key must be {_SECTION}, found {found}")])
    parsed = validate(model, without_nulls(value[_SECTION] or {}), document, at=(_SECTION,))
    problems = [
        document.problem((_SECTION, "TrainingArguments", name), message)
        for name in parsed.TrainingArguments.extra_keys()
        if (message := library_key(name))
    ]
    problems += [document.problem((_SECTION, *path), message) for path, message in _wrong_values(parsed)]
    if problems:
        raise ConfigError(problems)
    return parsed


def _wrong_values(parsed: TrainingConfig) -> Iterator[tuple[tuple[str, str], str]]:
    """Yields section, key and message of values that the library or the job would reject on the node."""
    yield from _if_wrong("ModelConfig", "torch_dtype", number_format_problem(parsed.ModelConfig.torch_dtype))
    section = parsed.QuantizationConfig
    message = number_format_problem(section.bnb_4bit_compute_dtype)
    yield from _if_wrong("QuantizationConfig", "bnb_4bit_compute_dtype", message)
    arguments = parsed.TrainingArguments
    for key, value, known in (
        ("optim", arguments.optim, OPTIMIZERS),
        ("lr_scheduler_type", arguments.lr_scheduler_type, SCHEDULES),
    ):
        if value not in known:
            hint = nearest(value, known) or f": use one of {', '.join(sorted(known))}"
            yield ("TrainingArguments", key), f"{value!r} is not known{hint}"
    for name, value in arguments.extra_keys().items():
        if name in NUMBERS and (isinstance(value, bool) or not _is_numeral(value)):
            yield ("TrainingArguments", name), f"must be a number, found {value!r:.40}"
    yield from _if_wrong("TrainingArguments", "output_dir", _outside(arguments.output_dir))
    yield from _if_wrong("DatasetConfig", "dataset_path", _outside(parsed.DatasetConfig.dataset_path))


def _if_wrong(section: str, key: str, message: str) -> Iterator[tuple[tuple[str, str], str]]:
    if message:
        yield (section, key), message


def _is_numeral(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError, OverflowError):
        return False


def _outside(path: str | None) -> str:
    """Returns why a relative path is outside its directory; empty if it is inside, or absolute.

    Absolute paths are checked in the pod, where the directory is known.
    """
    if path is None or posixpath.isabs(path) or not posixpath.normpath(path).startswith(".."):
        return ""
    return f"{path!r} leaves the directory of the run: name a path below it"


def library_key(name: str) -> str:
    """Returns why a key of TrainingArguments that the schema does not declare is rejected; empty if it may be set."""
    if name in REFUSED_KEYS:
        return "cannot be set: the tuning job decides it"
    if name not in LIBRARY_KEYS:
        known = {*TrainingSection.model_fields, *LIBRARY_KEYS} - REFUSED_KEYS
        return f"unknown key of TrainingArguments{nearest(name, known)}"
    return ""


def _contradiction(message: str) -> ConfigError:
    return ConfigError([Problem(message, f"{_SECTION}.QuantizationConfig")])


def _kind(value: Any) -> str:
    return "an empty document" if value is None else type(value).__name__
