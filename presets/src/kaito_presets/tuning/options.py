"""Flags and environment of the tuning job.

Read once by `main`. What the operator decides comes as a flag; what the user decides stands in
`training_config.yaml`.
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

    config: Path | None = Field(default=None, description="training_config.yaml; default: all defaults")
    model: str | None = Field(
        default=None, description="model directory or Hugging Face id; else ModelConfig's, else /workspace/tfs/weights"
    )
    model_name: str | None = Field(default=None, description="preset name, written into the adapter's metadata")
    method: Method = Field(default="qlora", description="lora or qlora")
    data_dir: Path = Field(default=Path("/mnt/data"), description="where data lies or is downloaded to")
    data_urls: tuple[str, ...] = Field(default=(), description="files to download first; also from DATA_URLS")
    allow_in_cluster_data_urls: bool = Field(
        default=False,
        description="download from addresses inside the cluster, too; also from KAITO_ALLOW_IN_CLUSTER_DATA_URLS",
    )
    base_dir: Path | None = Field(
        default=None,
        description="the user's output and dataset paths must lie below it; default: the parent of --data-dir",
    )
    output_dir: Path | None = Field(
        default=None,
        description="where checkpoints and adapter go; else TrainingArguments.output_dir, else BASE/output",
    )
    push_image: str | None = Field(default=None, description="image reference to push the adapter to")
    docker_config: Path | None = Field(default=None, description="credentials, content of a dockerconfigjson secret")
    plain_http: bool = Field(default=False, description="talk to the registry without TLS (loopback always does)")
    push_retry_seconds: float = Field(
        default=3600.0,
        ge=0,
        description="how long a push that fails after training is tried again; the adapter can be copied meanwhile",
    )
    metrics_host: str = Field(
        default="0.0.0.0",  # noqa: S104 - a server in a pod
        description="address of /metrics, /healthz, /progress; also from KAITO_METRICS_HOST",
    )
    metrics_port: int = Field(
        default=5000, ge=-1, le=65535, description="port of /metrics, /healthz, /progress; 0 picks one, -1 none"
    )
    skip_memory_check: bool = Field(default=False, description="train even if the estimate says it cannot fit")
    dry_run: bool = Field(default=False, description="check everything that needs no model, print the plan, exit")

    def model_source(self, config: TrainingConfig) -> str:
        """Where the base model is."""
        return self.model or config.ModelConfig.pretrained_model_name_or_path or "/workspace/tfs/weights"

    @property
    def base(self) -> Path:
        """What the paths of the configuration file are relative to and may not leave."""
        return (self.base_dir or self.data_dir.parent).resolve()

    def output(self, config: TrainingConfig) -> Path:
        """The output directory: the operator's flag as it is, the user's choice below `base`.

        Raises:
            ConfigurationError: the user's choice is not strictly below `base`.
        """
        if self.output_dir:
            return self.base / self.output_dir
        chosen = config.TrainingArguments.output_dir or "output"
        path = (self.base / chosen).resolve()
        if self.base not in path.parents:
            raise ConfigurationError(f"TrainingArguments.output_dir {chosen} must lie below {self.base}")
        return path


def read_options(arguments: list[str], environment: Mapping[str, str] = os.environ) -> TuningOptions:
    """Resolve flags and environment.

    Raises:
        ConfigurationError: names the flag.
    """
    values = raw_values(TuningOptions, arguments, program="kaito-tuning")
    if not values.get("data_urls") and environment.get(DATA_URLS_VARIABLE, "").strip():
        values["data_urls"] = _urls(environment[DATA_URLS_VARIABLE])
    if environment.get(IN_CLUSTER_VARIABLE):
        values.setdefault("allow_in_cluster_data_urls", environment[IN_CLUSTER_VARIABLE])
    if environment.get(METRICS_HOST_VARIABLE):
        values.setdefault("metrics_host", environment[METRICS_HOST_VARIABLE])
    return validated(TuningOptions, values)


def _urls(text: str) -> list[str]:
    if not text.lstrip().startswith("["):
        return text.split()
    try:
        urls = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{DATA_URLS_VARIABLE}: not a JSON list: {error}") from error
    return [str(url) for url in urls]
