"""Decides everything before the engine starts: flags, hardware, adapters, place in the group.

Used by `main` and `worker`.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from kaito_presets.errors import ConfigurationError
from kaito_presets.json_values import is_list
from kaito_presets.machine import read_memory_limit
from kaito_presets.serving.adapter_sync import AdapterSync
from kaito_presets.serving.adapters import Adapter
from kaito_presets.serving.progress import download_cache
from kaito_presets.serving.tracing import traces_endpoint
from kaito_presets.vllm.arguments import ModelProperties, command_line, engine_flags, read_model, scaled_adapters
from kaito_presets.vllm.hardware import read_gpus
from kaito_presets.vllm.offload import offload_flags
from kaito_presets.vllm.options import WrapperOptions, WrapperPlan

DEFAULT_MODEL: Final = "/workspace/vllm/weights"
DEFAULT_PORT: Final = 5000
TRACES_FLAG: Final = "otlp-traces-endpoint"
"""vLLM's flag with the URL of the collector; its spans of a request are children of those of this program."""
DEFAULT_MAX_SEQUENCES: Final = 256
"""vLLM's default of --max-num-seqs on most GPUs. The wrapper admits twice as many requests."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Everything that is decided before the engine starts."""

    plan: WrapperPlan
    model: str
    """Directory or Hugging Face id."""
    model_properties: ModelProperties
    flags: Mapping[str, Any]
    """Flags of the first start."""
    adapters: Sequence[str]
    host: str
    port: int
    scratch: Path
    """Directory for copies of rescaled adapters."""
    sync: AdapterSync | None = None
    """The list of adapters that the server follows; None if its adapters do not change."""

    def command(self, flags: Mapping[str, Any], *address: str) -> list[str]:
        """Builds the command line of the engine."""
        return [self.plan.options.kaito_engine, "serve", self.model, *address, *command_line(flags)]

    @property
    def served_name(self) -> str:
        """Name of the model in the OpenAI routes."""
        name = self.flags.get("served-model-name", self.model)
        return str(name[0] if is_list(name) else name)

    @property
    def options(self) -> WrapperOptions:
        """The options of the wrapper."""
        return self.plan.options

    @property
    def download_cache(self) -> Path | None:
        """Where vLLM downloads the weights to; None if they are in a local directory."""
        return download_cache(self.model, self.flags.get("download-dir"))

    @property
    def in_flight_limit(self) -> int | None:
        """Most requests under way; None for no limit."""
        if self.plan.options.kaito_disable_rate_limit:
            return None
        return 2 * int(self.flags.get("max-num-seqs", DEFAULT_MAX_SEQUENCES))

    @property
    def probe_steps(self) -> int:
        """Further starts allowed in the search for a context length; 0 if the user set it, and for a group of nodes,
        in which the engines of all nodes would have to start again."""
        if "max-model-len" in self.plan.engine or self.options.kaito_nodes > 1:
            return 0
        steps = self.plan.options.kaito_max_probe_steps
        return self.plan.config.max_probe_steps if steps is None else steps


def plan_launch(
    plan: WrapperPlan, adapters: Sequence[Adapter], scratch: Path, sync: AdapterSync | None = None
) -> Launch:
    """Resolves flags, hardware and adapters; copies of rescaled adapters go below `scratch`.

    Raises:
        PresetError: a flag, the model directory or an adapter cannot be used.
    """
    given = dict(plan.engine)
    model = str(given.pop("model", DEFAULT_MODEL))
    host = str(given.pop("host", "0.0.0.0"))  # noqa: S104 - a server in a pod
    port = _parse_port(given.pop("port", DEFAULT_PORT + int(os.environ.get("LOCAL_RANK", "0"))))
    facts = read_model(model)
    flags = engine_flags(
        given,
        model=facts,
        gpus=read_gpus(),
        nodes=plan.options.kaito_nodes,
        adapters=adapters,
        adapter_paths=scaled_adapters(adapters, scratch),
        adapters_change=sync is not None,
    )
    if (endpoint := traces_endpoint(os.environ)) and TRACES_FLAG not in given:
        flags[TRACES_FLAG] = endpoint
    flags |= offload_flags(plan, flags, read_memory_limit())
    names = [adapter.name for adapter in adapters]
    return Launch(
        plan=plan, model=model, model_properties=facts, flags=flags, adapters=names, host=host, port=port,
        scratch=scratch, sync=sync,
    )  # fmt: skip


def _parse_port(value: object) -> int:
    try:
        return int(str(value))
    except ValueError as error:
        raise ConfigurationError(f"--port: {value!r} is not a port number") from error
