"""Options of the tuning job: flags and environment variables.

`main` reads them once. The operator sets the flags; the user's settings are in `training_config.yaml`.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import BaseModel, Field

from kaito_presets.command_line import raw_values, validated
from kaito_presets.errors import ConfigurationError
from kaito_presets.tuning.config import Method, TrainingConfig

DATA_URLS_VARIABLE: Final = "DATA_URLS"
IN_CLUSTER_VARIABLE: Final = "KAITO_ALLOW_IN_CLUSTER_DATA_URLS"
METRICS_HOST_VARIABLE: Final = "KAITO_METRICS_HOST"


class TuningOptions(BaseModel, extra="forbid", frozen=True):
    """Tune a model with LoRA or QLoRA and push the adapter as an image."""

    config: Path | None = Field(
        default=None, description="training_config.yaml; without it, all settings have their defaults"
    )
    model: str | None = Field(
        default=None,
        description="model directory or Hugging Face id; default: that of ModelConfig, or /workspace/tfs/weights",
    )
    model_name: str | None = Field(default=None, description="name of the preset, for the metadata of the adapter")
    method: Method = Field(default="qlora", description="lora or qlora")
    data_dir: Path = Field(default=Path("/mnt/data"), description="directory of the data, also of downloaded files")
    data_urls: tuple[str, ...] = Field(default=(), description="files to download first; also from DATA_URLS")
    allow_in_cluster_data_urls: bool = Field(
        default=False,
        description="allow data URLs inside the cluster; also from KAITO_ALLOW_IN_CLUSTER_DATA_URLS",
    )
    base_dir: Path | None = Field(
        default=None,
        description="directory that output and dataset paths must not leave; default: the parent of --data-dir",
    )
    output_dir: Path | None = Field(
        default=None,
        description="directory of checkpoints and adapter; default: TrainingArguments.output_dir, or BASE/output",
    )
    push_image: str | None = Field(default=None, description="image reference to push the adapter to")
    docker_config: Path | None = Field(
        default=None, description="file with registry credentials (content of a dockerconfigjson Secret)"
    )
    plain_http: bool = Field(
        default=False, description="use HTTP without TLS for the registry (always on for loopback)"
    )
    push_retry_seconds: float = Field(
        default=3600.0,
        ge=0,
        description="time for retries of a push that fails after training; the adapter can be copied meanwhile",
    )
    metrics_host: str = Field(
        default="0.0.0.0",  # noqa: S104 - a server in a pod
        description="address of /metrics, /healthz, /progress; also from KAITO_METRICS_HOST",
    )
    metrics_port: int = Field(
        default=5000,
        ge=-1,
        le=65535,
        description="port of /metrics, /healthz, /progress; 0 selects a free port, -1 disables them",
    )
    skip_memory_check: bool = Field(
        default=False, description="train even if the estimated memory exceeds the free memory"
    )
    dry_run: bool = Field(default=False, description="check configuration, data and registry, print the plan and exit")

    def model_source(self, config: TrainingConfig) -> str:
        """Returns the directory or Hugging Face id of the base model."""
        return self.model or config.ModelConfig.pretrained_model_name_or_path or "/workspace/tfs/weights"

    @property
    def base(self) -> Path:
        """Directory to which paths in the configuration file are relative, and which they must not leave."""
        return (self.base_dir or self.data_dir.parent).resolve()

    def output(self, config: TrainingConfig) -> Path:
        """Resolves the output directory: the operator's flag, or the user's path below `base`.

        Raises:
            ConfigurationError: the user's path is not below `base`.
        """
        if self.output_dir:
            return self.base / self.output_dir
        relative = config.TrainingArguments.output_dir or "output"
        path = (self.base / relative).resolve()
        if self.base not in path.parents:
            raise ConfigurationError(f"TrainingArguments.output_dir {relative} must be below {self.base}")
        return path


def read_options(arguments: list[str], environment: Mapping[str, str] = os.environ) -> TuningOptions:
    """Resolves flags and environment variables; a flag takes precedence.

    Raises:
        ConfigurationError: a flag or variable has a wrong value.
    """
    values = raw_values(TuningOptions, arguments, program="kaito-tuning")
    if not values.get("data_urls") and environment.get(DATA_URLS_VARIABLE, "").strip():
        values["data_urls"] = _parse_urls(environment[DATA_URLS_VARIABLE])
    if environment.get(IN_CLUSTER_VARIABLE):
        values.setdefault("allow_in_cluster_data_urls", environment[IN_CLUSTER_VARIABLE])
    if environment.get(METRICS_HOST_VARIABLE):
        values.setdefault("metrics_host", environment[METRICS_HOST_VARIABLE])
    return validated(TuningOptions, values)


def _parse_urls(text: str) -> list[str]:
    if not text.lstrip().startswith("["):
        return text.split()
    try:
        urls = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{DATA_URLS_VARIABLE}: not a JSON list: {error}") from error
    return [str(url) for url in urls]
