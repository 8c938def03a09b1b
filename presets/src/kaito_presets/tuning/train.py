"""Trains the adapter: base model (quantized for qlora), LoRA layers, transformers' Trainer with checkpoints.

Called by `run`; the only module of the job that imports torch, transformers and PEFT. Guarantees:

* Only the adapter is trained and saved.
* A LoRA target that matches no layer is an error that lists the layers.
* A run that exceeds the memory fails before the weights are loaded.
"""
# torch and transformers are partly untyped; their unknown values stay inside this module.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

import dataclasses
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import torch
from kaito_config.training_arguments import REFUSED_KEYS
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.utils.logging import disable_progress_bar

from kaito_presets.errors import ConfigurationError, DataError, InsufficientMemory, ModelLoadError
from kaito_presets.machine import read_machine
from kaito_presets.tuning.config import Method, TrainingConfig
from kaito_presets.tuning.dataset import Dataset, Example
from kaito_presets.tuning.examples import IGNORED, TokenizedExample, as_conversations, tokenize
from kaito_presets.tuning.memory import GIB, Dimensions, estimate_bytes
from kaito_presets.tuning.progress import Progress, Report, TrainingRate

log = logging.getLogger(__name__)

JOB_KEYS: Final = frozenset({"max_length", "output_dir", "gradient_checkpointing"})
"""Keys of TrainingArguments that are not passed to the library, because this job evaluates them."""


SINGLE_THREAD_PARAMETERS: Final = 10_000_000
"""Models with fewer parameters are trained on one CPU thread: starting more costs more time than it saves."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a training."""

    finished: bool
    """False if the training was interrupted; a checkpoint was saved then."""
    steps: int
    loss: float | None
    targets: tuple[str, ...]
    """Names of the layers with an adapter."""
    trainable: int
    """Number of trained parameters."""
    templated: int
    """Number of examples that were trained in the model's chat template."""


@dataclass(frozen=True, slots=True)
class Job:
    """Input of a training."""

    config: TrainingConfig
    method: Method
    source: str
    dataset: Dataset
    output: Path
    checkpoint: Path | None
    check_memory: bool


def check_arguments(config: TrainingConfig) -> None:
    """Checks that the installed library has all configured keys of TrainingArguments.

    Raises:
        ConfigurationError: a key is unknown or must not be set.
    """
    known = {field.name for field in dataclasses.fields(TrainingArguments)}
    for name in config.TrainingArguments.extra_keys():
        if name in REFUSED_KEYS:
            raise ConfigurationError(f"TrainingArguments.{name} cannot be set for a tuning job")
        if name not in known:
            raise ConfigurationError(f"TrainingArguments.{name} is unknown to this job and to transformers")


def train(job: Job, progress: Progress, stop: threading.Event) -> Outcome:
    """Trains the adapter and saves it to `job.output`; saves a checkpoint and returns when `stop` is set.

    Raises:
        PresetError: configuration, data or model cannot be used, or the memory is not sufficient.
    """
    section = job.config.TrainingArguments
    disable_progress_bar()
    set_seed(section.seed)
    progress.set_phase("loading")
    tokenizer = _tokenizer(job)
    train_set, templated = _examples(job, tokenizer, job.dataset.train)
    eval_set, _ = _examples(job, tokenizer, job.dataset.evaluate)
    if not train_set:
        raise DataError("no example with a token to learn is left for training")
    longest = max(len(tokens.input_ids) for tokens in (*train_set, *eval_set))
    arguments = _arguments(job, evaluate=bool(eval_set))
    bits = job.config.bits(job.method)
    if job.check_memory:
        _check_memory(job, bits, longest)
    model, targets = _model(job, bits)
    if not torch.cuda.is_available() and model.num_parameters() < SINGLE_THREAD_PARAMETERS:
        torch.set_num_threads(1)
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    log.info("training %d parameters in %s", trainable, ", ".join(targets))
    callback = _Reporter(progress, stop, len(train_set))
    collate = _Collator(tokenizer.pad_token_id, job.config.DataCollator.pad_to_multiple_of)
    trainer: Any = Trainer(
        model=model,
        args=arguments,
        train_dataset=_ExampleDataset(train_set),
        eval_dataset=_ExampleDataset(eval_set) if eval_set else None,
        data_collator=collate,
        callbacks=[callback],
    )
    trainer.remove_callback(PrinterCallback)  # it prints dictionaries to the log, which `_Reporter` replaces
    result = trainer.train(resume_from_checkpoint=str(job.checkpoint) if job.checkpoint else None)
    steps = int(trainer.state.global_step)
    if callback.interrupted:
        return Outcome(
            finished=False, steps=steps, loss=None, targets=targets, trainable=trainable, templated=templated
        )
    progress.set_phase("saving")
    model.save_pretrained(str(job.output))
    loss = float(result.training_loss)
    return Outcome(finished=True, steps=steps, loss=loss, targets=targets, trainable=trainable, templated=templated)


def _examples(job: Job, tokenizer: Any, examples: Sequence[Example]) -> tuple[list[TokenizedExample], int]:
    """Returns the tokens of the examples, and how many of the examples are in the model's chat template."""
    shaped = as_conversations(
        examples,
        has_template=bool(tokenizer.chat_template),
        apply_chat_template=job.config.DatasetConfig.apply_chat_template,
    )
    templated = sum(bool(example.turns) for example in shaped)
    if shaped:
        log.info("%d of %d examples are trained in the model's chat template", templated, len(shaped))
    return tokenize(tokenizer, shaped, job.config.TrainingArguments.max_length), templated


def _tokenizer(job: Job) -> Any:
    section = job.config.ModelConfig
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(job.source, **_source_arguments(job))
    except Exception as error:
        raise _load_error(job, "tokenizer", error) from error
    if section.chat_template:
        inline = "{" in section.chat_template or "\n" in section.chat_template
        template = section.chat_template if inline else Path(section.chat_template).read_text(encoding="utf-8")
        tokenizer.chat_template = template
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _source_arguments(job: Job) -> dict[str, Any]:
    is_directory = Path(job.source).is_absolute() or Path(job.source).is_dir()
    given = job.config.ModelConfig.model_dump(
        include={"local_files_only", "trust_remote_code", "revision", "cache_dir", "force_download"}
    )
    return {"local_files_only": is_directory} | {name: value for name, value in given.items() if value is not None}


def _dtype(name: str | None, fallback: torch.dtype, key: str) -> torch.dtype:
    dtype = fallback if name in (None, "auto") else getattr(torch, str(name).removeprefix("torch."), None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ConfigurationError(f"{key}: {name!r} is not a floating-point type of torch")
    if dtype == torch.bfloat16 and torch.cuda.is_available() and torch.cuda.get_device_capability(0) < (8, 0):
        log.warning("%s: the GPU does not support bfloat16; using float16", key)
        return torch.float16
    return dtype


def _model_dtype(job: Job, config: Any) -> torch.dtype:
    stored = getattr(config, "dtype", None)
    fallback = stored if isinstance(stored, torch.dtype) else torch.float32
    return _dtype(job.config.ModelConfig.torch_dtype, fallback, "ModelConfig.torch_dtype")


def _config(job: Job) -> Any:
    try:
        return AutoConfig.from_pretrained(job.source, **_source_arguments(job))
    except Exception as error:
        raise _load_error(job, "configuration", error) from error


def _check_memory(job: Job, bits: int | None, longest: int) -> None:
    """Compares the estimated with the free memory.

    The model is built on the meta device, which has the dimensions of all layers without allocating them.

    Raises:
        InsufficientMemory: the estimate exceeds the free memory.
    """
    config = _config(job)
    with torch.device("meta"):
        skeleton: Any = AutoModelForCausalLM.from_config(config)
    linear = _linear_layers(skeleton)
    linear_numbers = sum(module.weight.numel() for module in linear.values())
    total = sum(parameter.numel() for parameter in skeleton.parameters())
    rank = job.config.LoraConfig.r
    section = job.config.TrainingArguments
    text = config.get_text_config(decoder=True)
    need = estimate_bytes(
        Dimensions(
            linear_parameters=linear_numbers,
            other_parameters=total - linear_numbers,
            adapter_parameters=sum(rank * sum(module.weight.shape) for module in linear.values()),
            layers=text.num_hidden_layers,
            hidden_size=text.hidden_size,
            vocabulary=text.vocab_size,
            batch=section.per_device_train_batch_size,
            length=longest,
            bytes_per_weight=_model_dtype(job, config).itemsize,
            checkpointing=section.gradient_checkpointing,
        ),
        bits,
    )
    free, where = _free_memory()
    log.info("memory: about %.1f GiB needed, %.1f GiB free %s", need / GIB, free / GIB, where)
    if need > free:
        raise InsufficientMemory(
            f"this run needs about {need / GIB:.1f} GiB and {free / GIB:.1f} GiB are free {where}; lower max_length "
            f"(the longest example has {longest} tokens), the batch size ({section.per_device_train_batch_size}) "
            f"or the rank ({rank}), use qlora, or take a larger instance"
        )


def _free_memory() -> tuple[int, str]:
    if torch.cuda.is_available():
        return sum(torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count())), "on the GPUs"
    machine = read_machine()
    return (machine.available_bytes if machine else 2**62), "in memory"


def _model(job: Job, bits: int | None) -> tuple[Any, tuple[str, ...]]:
    from peft import LoraConfig, TaskType, get_peft_model, prepare_model_for_kbit_training

    section = job.config.ModelConfig
    config = _config(job)
    arguments: dict[str, Any] = {"dtype": _model_dtype(job, config), "config": config}
    on_gpu = torch.cuda.is_available() and section.device_map != "cpu"
    arguments["device_map"] = section.device_map if on_gpu else {"": "cpu"}
    if bits:
        arguments["quantization_config"] = _quantization(job, bits)
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(job.source, **arguments, **_source_arguments(job))
    except Exception as error:
        raise _load_error(job, "weights", error) from error
    checkpointing = job.config.TrainingArguments.gradient_checkpointing
    if bits:
        model = prepare_model_for_kbit_training(
            model, use_gradient_checkpointing=checkpointing, gradient_checkpointing_kwargs={"use_reentrant": False}
        )
    elif checkpointing:
        model.enable_input_require_grads()
    model.config.use_cache = False
    lora = job.config.LoraConfig.model_dump(exclude={"target_modules"})
    targets = select_targets(model, job.config.LoraConfig.target_modules)
    try:
        lora_config = LoraConfig(task_type=TaskType.CAUSAL_LM, target_modules=list(targets), **lora)
        return get_peft_model(model, lora_config), targets
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"LoraConfig: {error}") from error


def _quantization(job: Job, bits: int) -> BitsAndBytesConfig:
    section = job.config.QuantizationConfig
    if bits == 4 and section.bnb_4bit_quant_type == "fp4" and not torch.cuda.is_available():
        raise ConfigurationError("QuantizationConfig.bnb_4bit_quant_type fp4 needs a GPU; nf4 works everywhere")
    values = section.model_dump(exclude={"quant_method", "load_in_4bit", "load_in_8bit", "bnb_4bit_compute_dtype"})
    compute = _dtype(section.bnb_4bit_compute_dtype, torch.float32, "QuantizationConfig.bnb_4bit_compute_dtype")
    return BitsAndBytesConfig(load_in_4bit=bits == 4, load_in_8bit=bits == 8, bnb_4bit_compute_dtype=compute, **values)


def _linear_layers(model: Any) -> dict[str, Any]:
    """Returns the linear layers by full name, without the output head. Quantized layers derive from `Linear` too."""
    head = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }


def select_targets(model: Any, configured: list[str] | str | None) -> tuple[str, ...]:
    """Selects the layers with an adapter, by the last part of their name.

    Raises:
        ModelLoadError: a configured name matches no linear layer. (Upstream configures unfused layers for Phi-3, which
            fuses them; PEFT then adapts the few layers that exist, without a warning.)
    """
    present = sorted({name.rpartition(".")[2] for name in _linear_layers(model)})
    if configured is None or configured == "all-linear":
        return tuple(present)
    names = [configured] if isinstance(configured, str) else configured
    missing = [name for name in names if name.rpartition(".")[2] not in present]
    if missing:
        raise ModelLoadError(
            f"LoraConfig.target_modules: {', '.join(missing)} match no linear layer; this model has "
            f"{', '.join(present)}"
        )
    return tuple(names)


def _arguments(job: Job, *, evaluate: bool) -> TrainingArguments:
    section = job.config.TrainingArguments
    on_gpu = torch.cuda.is_available() and not section.use_cpu
    dtype = _model_dtype(job, _config(job))
    values = section.model_dump(exclude={*JOB_KEYS, *section.extra_keys()})
    values |= {
        "output_dir": str(job.output),
        "use_cpu": not on_gpu,
        "bf16": section.bf16 if section.bf16 is not None else on_gpu and dtype == torch.bfloat16,
        "fp16": section.fp16 if section.fp16 is not None else on_gpu and dtype == torch.float16,
        # transformers 5 has renamed gradient checkpointing.
        "activation_checkpointing": section.gradient_checkpointing,
        "activation_checkpointing_kwargs": {"use_reentrant": False} if section.gradient_checkpointing else None,
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "dataloader_pin_memory": on_gpu,
    }
    values |= section.extra_keys()
    if evaluate:
        values.setdefault("eval_strategy", "epoch")
    if not on_gpu and values["bf16"]:
        raise ConfigurationError("TrainingArguments.bf16 needs a GPU with bfloat16; remove it")
    try:
        return TrainingArguments(**values)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"TrainingArguments: {error}") from error


def _load_error(job: Job, part: str, error: Exception) -> ModelLoadError:
    first = str(error).partition("\n")[0]
    return ModelLoadError(f"cannot load the {part} of {job.source}: {type(error).__name__}: {first}")


@final
class _ExampleDataset(torch.utils.data.Dataset[dict[str, list[int]]]):
    def __init__(self, examples: list[TokenizedExample]) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        example = self._examples[index]
        return {"input_ids": example.input_ids, "labels": example.labels}


@final
class _Collator:
    """Builds batches with padding on the right, which is masked and excluded from the loss."""

    def __init__(self, pad: int, multiple: int | None) -> None:
        self._pad = pad
        self._multiple = multiple or 1

    def __call__(self, examples: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        width = max(len(example["input_ids"]) for example in examples)
        width = -(-width // self._multiple) * self._multiple

        def rows(key: str, filler: int) -> torch.Tensor:
            return torch.tensor([example[key] + [filler] * (width - len(example[key])) for example in examples])

        lengths = torch.tensor([len(example["input_ids"]) for example in examples])
        mask = (torch.arange(width)[None, :] < lengths[:, None]).long()
        return {"input_ids": rows("input_ids", self._pad), "labels": rows("labels", IGNORED), "attention_mask": mask}


@final
class _Reporter(TrainerCallback):
    """Updates the progress at each logged step, and ends the training when `stop` is set."""

    def __init__(self, progress: Progress, stop: threading.Event, examples: int) -> None:
        self._progress = progress
        self._stop = stop
        self._examples = examples
        self._pace: TrainingRate | None = None
        self._loss: float | None = None
        self._eval_loss: float | None = None
        self.interrupted = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        self._pace = TrainingRate(first_step=state.global_step)
        self._progress.update(Report("training", state.global_step, state.max_steps, examples=self._examples))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        if self._stop.is_set() and state.global_step < state.max_steps:
            self.interrupted = True
            control.should_save = args.save_strategy != "no"
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
        values: dict[str, float] = logs or {}
        self._loss = values.get("loss", self._loss)
        self._eval_loss = values.get("eval_loss", self._eval_loss)
        self._progress.update(
            Report(
                "training",
                step=state.global_step,
                total_steps=state.max_steps,
                epoch=round(state.epoch or 0.0, 3),
                loss=self._loss,
                learning_rate=values.get("learning_rate", self._progress.report.learning_rate),
                eval_loss=self._eval_loss,
                examples=self._examples,
                eta_seconds=self._pace.eta_seconds(state.global_step, state.max_steps) if self._pace else None,
            )
        )
