"""`training_config.yaml`: every section and key, with type, default and meaning.

Read by `main` before anything heavy is imported. The sections are those of upstream Kaito (v0.3 to v0.12);
unknown sections and keys are errors that name `section.key`. Keys of TrainingArguments beyond those listed
here are accepted if the installed transformers knows them (checked before the model is loaded).
"""

from pathlib import Path
from typing import Any, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kaito_presets.command_line import describe
from kaito_presets.errors import ConfigurationError
from kaito_presets.json_shapes import is_object

Method = Literal["lora", "qlora"]


class Section(BaseModel):
    """A section refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSection(Section):
    """ModelConfig: how the base model is loaded."""

    pretrained_model_name_or_path: str | None = Field(
        default=None, description="directory or id; --model takes precedence"
    )
    torch_dtype: str | None = Field(default=None, description="bfloat16, float16 or float32; default: the checkpoint's")
    device_map: str | dict[str, Any] = Field(default="auto", description="auto or cpu")
    local_files_only: bool = Field(default=True, description="false allows downloads (token: HF_TOKEN)")
    revision: str | None = Field(default=None, description="branch, tag or commit")
    trust_remote_code: bool = Field(default=False, description="run code that the model repository brings along")
    chat_template: str | None = Field(
        default=None, description="file or inline Jinja for tokenizers without a template"
    )
    cache_dir: str | None = Field(default=None, description="download cache")
    force_download: bool = Field(default=False, description="download again")


class QuantizationSection(Section):
    """QuantizationConfig: bitsandbytes, for qlora."""

    quant_method: Literal["bitsandbytes"] = "bitsandbytes"
    load_in_4bit: bool | None = Field(default=None, description="default: true for qlora, unless load_in_8bit")
    load_in_8bit: bool = False
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = Field(default="nf4", description="fp4 needs a GPU")
    bnb_4bit_compute_dtype: str = Field(default="bfloat16", description="number format of the products")
    bnb_4bit_use_double_quant: bool = Field(default=True, description="quantise the scales too")
    llm_int8_threshold: float = 6.0
    llm_int8_skip_modules: list[str] | None = None
    llm_int8_enable_fp32_cpu_offload: bool = False
    llm_int8_has_fp16_weight: bool = False

    @model_validator(mode="after")
    def _one_width(self) -> "QuantizationSection":
        if self.load_in_4bit and self.load_in_8bit:
            raise ValueError("load_in_4bit and load_in_8bit exclude each other")
        return self


class LoraSection(Section):
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


class TrainingSection(BaseModel):
    """TrainingArguments: the loop (transformers). Listed are the usual keys and the defaults that differ
    from the library's."""

    model_config = ConfigDict(extra="allow", frozen=True)

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

    def extra_keys(self) -> dict[str, Any]:
        """Keys that only the library can judge."""
        return dict(self.model_extra or {})


class CollatorSection(Section):
    """DataCollator: how examples become batches."""

    mlm: bool = Field(
        default=False, description="accepted for old files; causal models have no masked tokens, so never on"
    )
    pad_to_multiple_of: int | None = Field(default=None, ge=1)


class DatasetSection(Section):
    """DatasetConfig: which files and columns."""

    dataset_path: str | None = Field(
        default=None, description="one file below --base-dir instead of everything in --data-dir"
    )
    dataset_extension: Literal["parquet", "arrow", "json", "jsonl", "csv"] | None = Field(
        default=None, description="kind of file, where the name does not tell"
    )
    shuffle_dataset: bool = True
    shuffle_seed: int = 42
    train_test_split: float = Field(
        default=1.0, gt=0, le=1, description="share used for training; the rest is evaluated"
    )
    messages_column: str | None = Field(default=None, description="conversations: a list of {role, content}")
    instruction_column: str | None = Field(default=None, description="put before the context, with a blank line")
    context_column: str | None = Field(default=None, description="the prompt; only the response is learned")
    response_column: str | None = Field(default=None, description="the answer; without a context column: plain text")


class TrainingConfig(Section):
    """The whole file, below the key `training_config`."""

    ModelConfig: ModelSection = Field(default_factory=ModelSection)
    QuantizationConfig: QuantizationSection = Field(default_factory=QuantizationSection)
    LoraConfig: LoraSection = Field(default_factory=LoraSection)
    TrainingArguments: TrainingSection = Field(default_factory=TrainingSection)
    DataCollator: CollatorSection = Field(default_factory=CollatorSection)
    DatasetConfig: DatasetSection = Field(default_factory=DatasetSection)

    def bits(self, method: Method) -> int | None:
        """Width of the quantised weights, None for whole ones.

        Raises:
            ConfigurationError: the section contradicts the method.
        """
        section = self.QuantizationConfig
        if method == "lora":
            if section.load_in_4bit or section.load_in_8bit:
                raise ConfigurationError("method lora with QuantizationConfig.load_in_*: use method qlora")
            return None
        if section.load_in_8bit:
            return 8
        if section.load_in_4bit is False:
            raise ConfigurationError("method qlora needs QuantizationConfig.load_in_4bit or load_in_8bit")
        return 4


_NULL_MEANS_DEFAULT: Final = "null is the same as leaving the key out"


def read_training_config(path: Path | None) -> TrainingConfig:
    """Read and check the file; None gives all defaults.

    Raises:
        ConfigurationError: unreadable, not YAML, or a wrong key, named as `section.key`.
    """
    if path is None:
        return TrainingConfig()
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--config {path}: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"--config {path}: not YAML: {error}") from error
    if not is_object(document) or set(document) != {"training_config"}:
        found = sorted(map(str, document)) if is_object(document) else type(document).__name__
        raise ConfigurationError(f"--config {path}: the only top-level key must be training_config, found {found}")
    try:
        return TrainingConfig.model_validate(_without_nulls(document["training_config"] or {}))
    except ValidationError as error:
        raise ConfigurationError(f"--config {path}: {describe(error)}") from error


def _without_nulls(value: Any) -> Any:
    """Upstream's templates write null for "not set"; here that means the default, not the word None."""
    if is_object(value):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value
