"""Loads model and tokenizer from a directory or from a Hugging Face id.

Used by `model`. Guarantees that an exception of the libraries becomes a `ModelLoadError` that names the source, that
nothing is downloaded without `--allow_remote_files`, and that the device supports the number format (a V100 does not
support bfloat16).
"""
# torch and transformers are partly untyped; their unknown values stay inside this module.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

import logging
import os
from pathlib import Path
from typing import Any

import torch

from kaito_presets.environment import check_readable
from kaito_presets.errors import ConfigurationError, ModelLoadError
from kaito_presets.inference.options import InferenceOptions

log = logging.getLogger(__name__)

FIRST_BFLOAT16_CAPABILITY = (8, 0)
"""NVIDIA Ampere. Older GPUs emulate bfloat16 slowly or not at all (CUDA programming guide)."""


def check_source(options: InferenceOptions) -> None:
    """Checks the source before anything is loaded.

    Raises:
        ModelLoadError: the path does not exist, is not a model directory, or cannot be read.
    """
    source = options.pretrained_model_name_or_path
    path = Path(source)
    check_readable(path)
    if path.is_dir():
        if not (path / "config.json").is_file():
            found = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
            raise ModelLoadError(f"{source} does not contain config.json (found: {found})")
    elif path.is_absolute() or source.startswith("."):
        raise ModelLoadError(f"model directory {source} does not exist")
    elif not options.allow_remote_files and source.count("/") != 1:
        raise ModelLoadError(f"{source} is neither a directory nor a Hugging Face id (organization/name)")


def load_tokenizer(options: InferenceOptions) -> Any:
    """Loads the tokenizer; `options.chat_template` replaces its chat template.

    Raises:
        ModelLoadError: the libraries cannot load it.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            options.pretrained_model_name_or_path, **_source_arguments(options)
        )
    except Exception as error:
        raise _load_error(options, "tokenizer", error) from error
    if options.chat_template:
        tokenizer.chat_template = _chat_template(options.chat_template)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(options: InferenceOptions) -> Any:
    """Loads the model onto its device, in evaluation mode.

    Raises:
        ModelLoadError: the libraries cannot load it.
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # it would fill the log with control characters
    source = options.pretrained_model_name_or_path
    try:
        config = AutoConfig.from_pretrained(source, **_source_arguments(options))
    except Exception as error:
        raise _load_error(options, "configuration", error) from error
    arguments: dict[str, Any] = {"dtype": resolve_dtype(options.torch_dtype, config)}
    device_map = _device_map(options)
    if device_map is not None:
        arguments["device_map"] = device_map
    if options.load_in_4bit or options.load_in_8bit:
        arguments["quantization_config"] = _quantization(options, arguments["dtype"])
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            source, config=config, **arguments, **_source_arguments(options)
        )
    except Exception as error:
        raise _load_error(options, "weights", error) from error
    return model.eval()


def resolve_dtype(requested: str | None, config: Any) -> torch.dtype:
    """Resolves the number format: the requested one, else that of the checkpoint; float16 where bfloat16 is missing.

    Raises:
        ConfigurationError: `requested` is not the name of a floating-point dtype of torch.
    """
    stored = getattr(config, "dtype", None)
    if requested not in (None, "auto"):
        dtype = getattr(torch, str(requested).removeprefix("torch."), None)
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise ConfigurationError(f"--torch_dtype: {requested!r} is neither auto nor a floating-point type of torch")
    else:
        dtype = stored if isinstance(stored, torch.dtype) else torch.float32
    if dtype == torch.bfloat16 and torch.cuda.is_available():
        capability = torch.cuda.get_device_capability(0)
        if capability < FIRST_BFLOAT16_CAPABILITY:
            log.warning("the GPU (compute capability %d.%d) does not support bfloat16; using float16", *capability)
            dtype = torch.float16
    return dtype


def _device_map(options: InferenceOptions) -> str | None:
    """Returns the device map; None keeps the model on the CPU without importing accelerate."""
    if options.device_map == "cpu" or not torch.cuda.is_available():
        return None
    return options.device_map


def _quantization(options: InferenceOptions, dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    if options.load_in_8bit:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def _source_arguments(options: InferenceOptions) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "local_files_only": not options.allow_remote_files,
        "trust_remote_code": options.trust_remote_code,
    }
    if options.revision:
        arguments["revision"] = options.revision
    if options.cache_dir:
        arguments["cache_dir"] = options.cache_dir
    if options.force_download:
        arguments["force_download"] = True
    if token := os.environ.get("HF_TOKEN"):
        arguments["token"] = token
    return arguments


def _chat_template(value: str) -> str:
    if "{" in value or "\n" in value:
        return value.encode().decode("unicode_escape") if "\\n" in value else value
    try:
        return Path(value).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"--chat_template: {error}") from error


def _load_error(options: InferenceOptions, part: str, error: Exception) -> ModelLoadError:
    hint = ""
    if not options.allow_remote_files and not Path(options.pretrained_model_name_or_path).is_dir():
        hint = " (downloads are disabled; --allow_remote_files enables them)"
    first_line = str(error).partition("\n")[0]
    source = options.pretrained_model_name_or_path
    return ModelLoadError(f"cannot load the {part} of {source}: {type(error).__name__}: {first_line}{hint}")
