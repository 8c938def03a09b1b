"""Options of the vLLM wrapper: flags with the prefix `--kaito-`; all other flags are passed to vLLM.

`main` reads them once. The `vllm:` section of `inference_config.yaml` takes precedence over the operator's flags.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, Field

from kaito_presets.command_line import validated
from kaito_presets.errors import ConfigurationError
from kaito_presets.serving.config import InferenceConfigFile, read_config_file

SILENCE_SECONDS: Final = 60.0
"""Time without a heartbeat after which a member is lost. After an interruption of 30 s, TCP's retransmission delivers
within 55 s, so that a group survives it."""

MASTER_PORT: Final = 29501
"""Port of torch.distributed's store on the leader: vLLM's default of --master-port."""


class WrapperOptions(BaseModel, extra="forbid", frozen=True):
    """Serve a model with vLLM, with Kaito's /chat in front."""

    kaito_adapters_dir: Path = Field(
        default=Path("/mnt/adapter"), description="directory of the adapters, one directory each"
    )
    kaito_config_file: Path | None = Field(default=None, description="inference_config.yaml")
    kaito_max_probe_steps: int | None = Field(
        default=None, ge=0, description="most further starts of the engine while searching max-model-len"
    )
    kaito_kv_cache_cpu_memory_utilization: float | None = Field(
        default=None, ge=0, le=1, description="share of the pod's memory for offloaded cache; 0 disables the offload"
    )
    kaito_disable_rate_limit: bool = Field(default=False, description="do not limit the number of running requests")
    kaito_nodes: int = Field(default=1, ge=1, description="nodes that serve one copy of the model together")
    kaito_node_rank: int | None = Field(
        default=None, ge=0, description="place among these nodes, 0 for the leader; by default from the pod's name"
    )
    kaito_leader: str = Field(default="", description="host of the leader; by default from the pod's name")
    kaito_group_port: int = Field(default=29502, ge=1, le=65535, description="port of the leader for the other nodes")
    kaito_master_port: int = Field(
        default=MASTER_PORT, ge=1, le=65535, description="port of torch's store on the leader"
    )
    kaito_group_timeout: float = Field(
        default=SILENCE_SECONDS,
        gt=0,
        description="seconds without a sign of another node after which all nodes restart",
    )
    kaito_engine: str = Field(default="vllm", description="executable of the engine")
    kaito_drain_seconds: float = Field(default=25.0, ge=0, description="time for running requests after SIGTERM")
    kaito_dry_run: bool = Field(default=False, description="print the engine's command and exit")


@dataclass(frozen=True, slots=True)
class WrapperPlan:
    """Options of the wrapper, and flags of vLLM by name (with dashes)."""

    options: WrapperOptions
    engine: dict[str, Any]
    config: InferenceConfigFile


def read_options(arguments: list[str]) -> WrapperPlan:
    """Parses the flags of the wrapper and of vLLM, and merges the configuration file.

    Raises:
        ConfigurationError: a flag of the wrapper is wrong, or an argument does not belong to a flag.
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
    """Parses `--a=b`, `--a b c` and `--a` (True) into a mapping; names have dashes, the last of equal flags is used."""
    flags: dict[str, Any] = {}
    name: str | None = None
    for word in arguments:
        if word.startswith("--"):
            key, equals, value = word.removeprefix("--").partition("=")
            # The part after the dot of a nested flag keeps its underscores: --compilation-config.pass_config.x
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
