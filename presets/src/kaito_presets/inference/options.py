"""What the inference server can be told: flags, the configuration file, and the environment of its container.

Read once by `main`. Flags are those of upstream Kaito's transformers server (v0.3 to v0.12) plus ours;
precedence is default < flag < configuration file, because the operator writes the flags and the user writes
the file. Unknown keys are errors everywhere.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError

from kaito_presets.command_line import describe, raw_values, validated
from kaito_presets.errors import ConfigurationError
from kaito_presets.json_shapes import is_object

STRENGTHS_VARIABLE: Final = "KAITO_ADAPTER_STRENGTHS"

CombinationType = Literal[
    "cat", "svd", "linear", "ties", "ties_svd", "dare_ties", "dare_linear", "dare_ties_svd", "dare_linear_svd",
    "magnitude_prune", "magnitude_prune_svd",
]  # fmt: skip


class InferenceOptions(BaseModel, extra="forbid", frozen=True):
    """Serve a model directory or a Hugging Face model over HTTP."""

    # The model.
    pretrained_model_name_or_path: str = Field(
        default="/workspace/tfs/weights", description="model directory (also a mounted image layer) or Hugging Face id"
    )
    served_model_name: str | None = Field(
        default=None, description="name in the OpenAI routes; default: the model path"
    )
    revision: str | None = Field(default=None, description="branch, tag or commit of a Hugging Face id")
    allow_remote_files: bool = Field(default=False, description="download what is not there (token: HF_TOKEN)")
    trust_remote_code: bool = Field(default=False, description="run Python code that the model repository brings along")
    force_download: bool = Field(default=False, description="download again what the cache already has")
    cache_dir: str | None = Field(default=None, description="download cache")
    torch_dtype: str | None = Field(
        default=None, description="auto, float32, float16 or bfloat16; default: what the device does well"
    )
    device_map: str = Field(default="auto", description="auto, cpu or cuda; auto spreads layers over all GPUs")
    load_in_4bit: bool = Field(default=False, description="quantise the weights to 4 bits at load (bitsandbytes)")
    load_in_8bit: bool = Field(default=False, description="quantise the weights to 8 bits at load (bitsandbytes)")
    chat_template: str | None = Field(
        default=None, description="file, or the template itself if it holds '{' or a line break"
    )
    pipeline: Literal["text-generation", "conversational"] = Field(
        default="text-generation",
        description="what /chat takes: text-generation a prompt, conversational messages; both accept either",
    )
    # Adapters.
    adapters_dir: Path = Field(
        default=Path("/mnt/adapter"), description="each directory below it with an adapter_config.json is loaded"
    )
    combination_type: CombinationType = Field(
        default="cat", description="how PEFT merges several adapters; cat is the exact weighted sum"
    )
    # The server.
    host: str = Field(default="0.0.0.0", description="address to listen on")  # noqa: S104 - a server in a pod
    port: int = Field(default=5000, ge=0, le=65535, description="port to listen on; 0 picks one")
    max_batch_size: int = Field(default=32, ge=1, le=1024, description="sequences generated at the same time")
    max_queue_size: int = Field(default=128, ge=0, description="sequences that may wait; more are answered with 429")
    max_model_len: int | None = Field(
        default=None, ge=16, description="cap of prompt plus output, in tokens; default: what model and memory allow"
    )
    max_request_bytes: int = Field(
        default=4 * 2**20, ge=1024, description="larger request bodies are answered with 413"
    )
    drain_seconds: float = Field(default=25.0, ge=0, description="time that requests under way get after SIGTERM")
    threads: int = Field(default=0, ge=0, description="CPU threads; 0 measures at start and keeps the fastest")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="what is logged")
    config: Path | None = Field(
        default=None, description="inference_config.yaml; its transformers: section overrides these flags"
    )
    dry_run: bool = Field(default=False, description="print the resolved plan as JSON and exit")

    @property
    def name(self) -> str:
        """Name of the model in the OpenAI routes."""
        return self.served_model_name or self.pretrained_model_name_or_path


class InferenceConfigFile(BaseModel, extra="forbid", frozen=True):
    """`inference_config.yaml`: one file for both runtimes; each reads its own section."""

    transformers: dict[str, Any] = Field(default_factory=dict, description="flags of this server")
    vllm: dict[str, Any] = Field(
        default_factory=dict, description="flags of vLLM; not read by the transformers runtime"
    )
    max_probe_steps: int = Field(default=6, ge=0, description="vLLM only: steps of the max-model-len search")
    kv_cache_cpu_memory_utilization: float = Field(
        default=0.5, ge=0, le=1, description="vLLM only: share of host memory for offloaded cache"
    )


def read_config_file(path: Path) -> InferenceConfigFile:
    """Read and check the file.

    Raises:
        ConfigurationError: unreadable, not YAML, unknown or wrong keys.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--config {path}: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"--config {path}: not YAML: {error}") from error
    try:
        return InferenceConfigFile.model_validate({} if document is None else document)
    except ValidationError as error:
        raise ConfigurationError(f"--config {path}: {describe(error)}") from error


def read_options(arguments: list[str]) -> InferenceOptions:
    """Resolve flags and configuration file.

    Raises:
        ConfigurationError: names the flag or key.
    """
    values = raw_values(InferenceOptions, arguments, program="kaito-inference")
    if "config" in values:
        section = read_config_file(Path(values["config"])).transformers
        values |= {key.replace("-", "_"): value for key, value in section.items()}
    options = validated(InferenceOptions, values)
    if options.load_in_4bit and options.load_in_8bit:
        raise ConfigurationError("--load_in_4bit and --load_in_8bit exclude each other")
    return options


def read_strengths(environment: Mapping[str, str] = os.environ) -> dict[str, float]:
    """Adapter strengths from `KAITO_ADAPTER_STRENGTHS`, a JSON object of numbers or strings that hold
    numbers.

    Raises:
        ConfigurationError: not such an object, or a strength outside [0, 1].
    """
    text = environment.get(STRENGTHS_VARIABLE, "").strip()
    if not text:
        return {}
    try:
        document = json.loads(text)
        if not is_object(document):
            raise TypeError(f"expected an object, found {type(document).__name__}")
        strengths = {name: float(value) for name, value in document.items()}
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{STRENGTHS_VARIABLE}: {error}") from error
    for name, strength in strengths.items():
        if not 0.0 <= strength <= 1.0:
            raise ConfigurationError(f"{STRENGTHS_VARIABLE}: strength of {name!r} is {strength}, must lie in [0, 1]")
    return strengths
