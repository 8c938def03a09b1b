"""Command lines of the servers and of the tuning job, as pure functions of a plan.

A command is a list of words, run without a shell, so nothing needs quoting and an adapter may be called `my-adapter`;
`shell_line` writes it for people. Flags are sorted: the same plan always gives the same pod. Kubernetes expands
`$(NAME)` in commands, so a value that contains `$(` is escaped.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Final

from kaito.models.engine import sets_parallelism
from kaito.models.planning import InferencePlan, TuningPlan
from kaito.models.preset import Flags
from kaito.models.sizing import max_sequences, utilization
from kaito.models.sources import DOWNLOAD_DIRECTORY, Download, ModelSource, WeightsInImage, model_source

TRANSFORMERS_SERVER: Final = ("python3", "/workspace/tfs/inference_api.py")
VLLM_SERVER: Final = ("python3", "/workspace/vllm/inference_api.py")
TUNING_JOB: Final = ("python3", "/workspace/tfs/fine_tuning.py")

PORT: Final = 5000
"""Port the servers listen on, and the tuning job's metrics."""

ADAPTERS_DIRECTORY: Final = "/mnt/adapter"
"""Each adapter is a directory of its name below it."""

INFERENCE_CONFIG: Final = "/mnt/config/inference_config.yaml"
TRAINING_CONFIG: Final = "/mnt/config/training_config.yaml"
DATA_DIRECTORY: Final = "/mnt/data"
RESULTS_DIRECTORY: Final = "/mnt/results"

ADAPTER_STRENGTHS: Final = "KAITO_ADAPTER_STRENGTHS"
"""Environment variable with the adapters' strengths, a JSON object of name to number as text."""

PERFORMANCE_MODES: Final = frozenset({"throughput", "interactivity"})
"""Values of vLLM's `--performance-mode` beside its default, `balanced`."""

_NO_ALLREDUCE_FUSION: Final = "compilation-config.pass_config.fuse_allreduce_rms"
"""vLLM's pass that fuses an all-reduce with the norm after it. Its kernel is compiled when the engine starts, which
fails with "Could not find nvcc" in images without the CUDA toolkit (upstream Kaito v0.12 switches it off)."""

HF_TOKEN: Final = "HF_TOKEN"  # noqa: S105 - the variable's name, not a token
"""Environment variable (and key of the Secret) with the Hugging Face token."""


def inference_command(
    plan: InferencePlan,
    *,
    source: ModelSource | None = None,
    served_name: str = "",
    adapters: bool = False,
    config: bool = False,
    performance_mode: str = "",
    port: int = PORT,
) -> list[str]:
    """The command of the serving container.

    Args:
        plan: what to serve and how.
        source: where the weights are; None takes the preset's own.
        served_name: the model's name in requests; empty takes the preset's.
        adapters: whether adapters are mounted below `ADAPTERS_DIRECTORY`.
        config: whether the user's configuration is mounted at `INFERENCE_CONFIG`.
        performance_mode: what vLLM is tuned for, `throughput` or `interactivity`; anything else is vLLM's default.
        port: where to listen.
    """
    source = source or model_source(plan.preset)
    if plan.runtime == "transformers":
        flags = _transformers_flags(plan, source)
        names = {"served": "served_model_name", "adapters": "adapters_dir", "config": "config"}
        program = TRANSFORMERS_SERVER
    else:
        flags = _vllm_flags(plan, source)
        names = {"served": "served-model-name", "adapters": "kaito-adapters-dir", "config": "kaito-config-file"}
        program = VLLM_SERVER
        if adapters:
            flags["enable-lora"] = True
        if performance_mode in PERFORMANCE_MODES:
            flags["performance-mode"] = performance_mode
    flags[names["served"]] = served_name or plan.preset.name
    flags["port"] = str(port)
    if adapters:
        flags[names["adapters"]] = ADAPTERS_DIRECTORY
    if config:
        flags[names["config"]] = INFERENCE_CONFIG
    return [*program, *arguments(flags)]


def inference_environment(plan: InferencePlan, strengths: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment of the serving container; `strengths` is adapter name to strength, `1.0` when empty."""
    environment: dict[str, str] = {}
    if plan.runtime == "vllm" and plan.preset.vllm:
        # Upstream Kaito v0.12: the sampler's kernels are compiled at start and need a toolkit most images lack.
        environment["VLLM_USE_FLASHINFER_SAMPLER"] = "0"
        environment["VLLM_USE_DEEP_GEMM"] = "1" if plan.preset.vllm.deep_gemm else "0"
    if strengths:
        named = {name: strength or "1.0" for name, strength in strengths.items()}
        environment[ADAPTER_STRENGTHS] = json.dumps(named, sort_keys=True)
    return environment


def tuning_command(
    plan: TuningPlan,
    *,
    source: ModelSource | None = None,
    push_image: str = "",
    docker_config: str = "",
    results: str = RESULTS_DIRECTORY,
    data: str = DATA_DIRECTORY,
    port: int = PORT,
) -> list[str]:
    """The command of the tuning container; the image is pushed with the credentials file `docker_config`."""
    source = source or model_source(plan.preset)
    flags: Flags = {
        "config": TRAINING_CONFIG,
        "data-dir": data,
        "method": plan.method,
        "metrics-port": str(port),
        "model": source.path("transformers") if isinstance(source, WeightsInImage) else source.repository,
        "model-name": plan.preset.name,
        "output-dir": results,
    }
    if push_image:
        flags["push-image"] = push_image
        flags["docker-config"] = docker_config
    return [*TUNING_JOB, *arguments(flags)]


def arguments(flags: Flags) -> list[str]:
    """Flags as words, sorted by name: `--name=value`, `--name` for True, nothing for False."""
    return [
        f"--{name}" if value is True else f"--{name}={_literal(str(value))}"
        for name, value in sorted(flags.items())
        if value is not False
    ]


def shell_line(command: Sequence[str]) -> str:
    """The command as one line that a POSIX shell reads back into the same words."""
    return shlex.join(command)


def _literal(value: str) -> str:
    """Kubernetes reads `$$(NAME)` as the text `$(NAME)`."""
    return value.replace("$(", "$$(")


def _transformers_flags(plan: InferencePlan, source: ModelSource) -> Flags:
    own = plan.preset.transformers.flags if plan.preset.transformers else {}
    flags: Flags = {"pipeline": "text-generation", "torch_dtype": plan.dtype, **own}
    if isinstance(source, Download):
        flags["pretrained_model_name_or_path"] = source.repository
        flags["allow_remote_files"] = True
        if source.revision:
            flags["revision"] = source.revision
    else:
        flags["pretrained_model_name_or_path"] = source.path("transformers")
    return flags


def _vllm_flags(plan: InferencePlan, source: ModelSource) -> Flags:
    settings = plan.preset.vllm
    own = settings.flags if settings else {}
    flags: Flags = {
        "dtype": plan.dtype,
        "gpu-memory-utilization": _share(plan),
        "max-model-len": str(plan.engine.max_model_len or "auto"),
        "trust-remote-code": True,
        **own,
        **_vllm_parallelism(plan),
        **_vllm_sequences(plan),
    }
    if plan.parallelism.gpus > 1 or sets_parallelism(plan.engine):
        flags[_NO_ALLREDUCE_FUSION] = "False"
    if plan.engine.kv_cache_dtype:
        flags["kv-cache-dtype"] = plan.engine.kv_cache_dtype
    if (settings and not settings.host_cache) or plan.parallelism.data > 1 or plan.parallelism.pipeline > 1:
        flags["kaito-kv-cache-cpu-memory-utilization"] = "0"
    if isinstance(source, Download):
        flags |= {"model": source.repository, "download-dir": DOWNLOAD_DIRECTORY}
        if source.revision:
            flags |= {"revision": source.revision, "code-revision": source.revision}
    else:
        flags["model"] = source.path("vllm")
    return flags


def _share(plan: InferencePlan) -> str:
    """The share of GPU memory that the plan was sized with: the user's as it is written, else the GPU's."""
    share = plan.engine.gpu_memory_utilization
    return f"{utilization(plan.instance.gpu):.2f}" if share is None else f"{share:g}"


def _vllm_parallelism(plan: InferencePlan) -> Flags:
    """Sizes other than 1; all of them when the user set one, because the wrapper fills in what is absent."""
    sizes = {
        "tensor-parallel-size": plan.parallelism.tensor,
        "pipeline-parallel-size": plan.parallelism.pipeline,
        "data-parallel-size": plan.parallelism.data,
    }
    return {name: str(size) for name, size in sizes.items() if size > 1 or sets_parallelism(plan.engine)}


def _vllm_sequences(plan: InferencePlan) -> Flags:
    """Concurrent requests: the user's number, or what the state of a hybrid model leaves room for."""
    divided = plan.parallelism
    most = plan.engine.max_num_seqs or max_sequences(
        plan.preset,
        plan.instance,
        tensor=divided.tensor,
        stages=divided.pipeline,
        share=plan.engine.gpu_memory_utilization,
    )
    return {"max-num-seqs": str(most)} if most else {}
