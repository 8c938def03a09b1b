"""Flags of the vLLM wrapper: a few of our own, everything else is vLLM's and passed on.

Read once by `main`. `inference_config.yaml`'s `vllm:` section comes after the operator's flags, so it wins.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from kaito_presets.command_line import validated
from kaito_presets.errors import ConfigurationError
from kaito_presets.serving.config import InferenceConfigFile, read_config_file

OWN_PREFIX = "kaito_"


class WrapperOptions(BaseModel, extra="forbid", frozen=True):
    """Serve a model with vLLM, with Kaito's /chat in front."""

    kaito_adapters_dir: Path = Field(
        default=Path("/mnt/adapter"), description="each directory below it becomes a LoRA module"
    )
    kaito_config_file: Path | None = Field(default=None, description="inference_config.yaml")
    kaito_max_probe_steps: int | None = Field(
        default=None, ge=0, description="starts of the engine while searching max-model-len"
    )
    kaito_kv_cache_cpu_memory_utilization: float | None = Field(
        default=None, ge=0, le=1, description="share of host memory for offloaded cache; 0 switches it off"
    )
    kaito_disable_rate_limit: bool = Field(default=False, description="never answer 429 ourselves")
    kaito_nodes: int = Field(default=1, ge=1, description="nodes of the workload: pipeline stages")
    kaito_engine: str = Field(default="vllm", description="the executable that serves")
    kaito_drain_seconds: float = Field(default=25.0, ge=0, description="time that requests under way get after SIGTERM")
    kaito_dry_run: bool = Field(default=False, description="print the engine's command and exit")


@dataclass(frozen=True, slots=True)
class WrapperPlan:
    """Our options, and vLLM's flags by name (dashes), in order."""

    own: WrapperOptions
    engine: dict[str, Any]
    config: InferenceConfigFile


def read_options(arguments: list[str]) -> WrapperPlan:
    """Split our flags from vLLM's and merge the configuration file.

    Raises:
        ConfigurationError: one of ours is wrong, or an argument is no flag at all.
    """
    flags = split_flags(arguments)
    own = {name: value for name, value in flags.items() if name.startswith("kaito-")}
    engine = {name: value for name, value in flags.items() if not name.startswith("kaito-")}
    values = {name.replace("-", "_"): value for name, value in own.items()}
    options = validated(WrapperOptions, values)
    config = read_config_file(options.kaito_config_file) if options.kaito_config_file else InferenceConfigFile()
    engine |= {name.replace("_", "-"): value for name, value in config.vllm.items()}
    return WrapperPlan(options, engine, config)


def split_flags(arguments: list[str]) -> dict[str, Any]:
    """`--a=b`, `--a b c` and bare `--a` as a mapping; names with dashes. The last of equal flags wins."""
    flags: dict[str, Any] = {}
    name: str | None = None
    for word in arguments:
        if word.startswith("--"):
            key, equals, value = word.removeprefix("--").partition("=")
            # vLLM's nested flags keep their dots: --compilation-config.pass_config.x
            head, dot, tail = key.partition(".")
            name = head.replace("_", "-") + dot + tail
            flags[name] = value if equals else True
            if equals:
                name = None
        elif name is None:
            raise ConfigurationError(f"unexpected argument {word!r}")
        else:
            before = flags[name]
            flags[name] = word if before is True else [*(before if isinstance(before, list) else [before]), word]
    return flags
