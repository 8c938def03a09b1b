"""Builds the command lines of the servers and of the tuning job: pure functions of a plan.

A command is a list of arguments that runs without a shell, so that nothing must be quoted; `shell_line` formats it for
a shell. Flags are sorted, so that the same plan always results in the same pod. Kubernetes expands `$(NAME)` in
commands, so a value that contains `$(` is escaped.
"""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Final

from kaito.models.engine import sets_parallelism
from kaito.models.planning import InferencePlan, TuningPlan
from kaito.models.preset import Flags
from kaito.models.sizing import max_sequences, utilization
from kaito.models.sources import WEIGHTS_DIRECTORY, Download, LocalWeights, ModelSource, download_of

TRANSFORMERS_SERVER: Final = ("python3", "/workspace/tfs/inference_api.py")
VLLM_SERVER: Final = ("python3", "/workspace/vllm/inference_api.py")
TUNING_JOB: Final = ("python3", "/workspace/tfs/fine_tuning.py")

PORT: Final = 5000
"""Port of the servers, and of the tuning job's metrics."""

ADAPTERS_DIRECTORY: Final = "/mnt/adapter"
"""Directory with one subdirectory per adapter."""

INFERENCE_CONFIG: Final = "/mnt/config/inference_config.yaml"
TRAINING_CONFIG: Final = "/mnt/config/training_config.yaml"
DATA_DIRECTORY: Final = "/mnt/data"
RESULTS_DIRECTORY: Final = "/mnt/results"

ADAPTER_STRENGTHS: Final = "KAITO_ADAPTER_STRENGTHS"
"""Environment variable with the adapters' strengths: a JSON object of names and numbers as text."""

PERFORMANCE_MODES: Final = frozenset({"throughput", "interactivity"})
"""Values of vLLM's `--performance-mode` other than its default, `balanced`."""

_NO_ALLREDUCE_FUSION: Final = "compilation-config.pass_config.fuse_allreduce_rms"
"""vLLM's pass that fuses an all-reduce with the norm after it. Its kernel is compiled when the engine starts, which
fails with "Could not find nvcc" in images without the CUDA toolkit. Upstream Kaito v0.12 disables it, too."""

HF_TOKEN: Final = "HF_TOKEN"  # noqa: S105 - the variable's name, not a token
"""Environment variable, and key of the Secret, with the Hugging Face token."""


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
    """Returns the command of the container that serves a model.

    Args:
        plan: the plan of the workload.
        source: where the weights are; a download by default.
        served_name: the model's name in requests; the preset's name by default.
        adapters: whether adapters are mounted below `ADAPTERS_DIRECTORY`.
        config: whether the user's configuration is mounted at `INFERENCE_CONFIG`.
        performance_mode: vLLM's performance mode, `throughput` or `interactivity`; its default otherwise.
        port: port of the server.
    """
    source = source or download_of(plan.preset)
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
    """Returns the environment of the container that serves a model.

    Args:
        plan: the plan of the workload.
        strengths: strength by adapter name; an empty one is `1.0`.
    """
    environment: dict[str, str] = {}
    if plan.runtime == "vllm" and plan.preset.vllm:
        # As in upstream Kaito v0.12: the sampler's kernels are compiled at start, which needs the CUDA toolkit.
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
    """Returns the command of the tuning container; `docker_config` is the credentials file for pushing `push_image`."""
    source = source or download_of(plan.preset)
    flags: Flags = {
        "config": TRAINING_CONFIG,
        "data-dir": data,
        "method": plan.method,
        "metrics-port": str(port),
        "model": source.path("transformers") if isinstance(source, LocalWeights) else source.repository,
        "model-name": plan.preset.name,
        "output-dir": results,
    }
    if push_image:
        flags["push-image"] = push_image
        flags["docker-config"] = docker_config
    return [*TUNING_JOB, *arguments(flags)]


def arguments(flags: Flags) -> list[str]:
    """Returns flags as arguments, sorted by name: `--name=value`, `--name` for True, nothing for False."""
    return [
        f"--{name}" if value is True else f"--{name}={_literal(str(value))}"
        for name, value in sorted(flags.items())
        if value is not False
    ]


def shell_line(command: Sequence[str]) -> str:
    """Returns the command as one line that a POSIX shell splits into the same arguments."""
    return shlex.join(command)


def _literal(value: str) -> str:
    """Escapes `$(NAME)`, which Kubernetes would expand, as `$$(NAME)`."""
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
    if plan.nodes_per_copy > 1:
        flags["kaito-nodes"] = str(plan.nodes_per_copy)
    if plan.parallelism.gpus > 1 or sets_parallelism(plan.engine):
        flags[_NO_ALLREDUCE_FUSION] = "False"
    if plan.engine.kv_cache_dtype:
        flags["kv-cache-dtype"] = plan.engine.kv_cache_dtype
    if (settings and not settings.host_cache) or plan.parallelism.data > 1 or plan.parallelism.pipeline > 1:
        flags["kaito-kv-cache-cpu-memory-utilization"] = "0"
    if isinstance(source, Download):
        flags |= {"model": source.repository, "download-dir": WEIGHTS_DIRECTORY}
        if source.revision:
            flags |= {"revision": source.revision, "code-revision": source.revision}
    else:
        flags["model"] = source.path("vllm")
    return flags


def _share(plan: InferencePlan) -> str:
    """Returns the share of GPU memory that the plan was sized with: the user's, else that of the GPU."""
    share, slices = plan.engine.gpu_memory_utilization, plan.instance.shares
    if share is not None:
        return f"{share:g}"
    usual = utilization(plan.instance.gpu)
    # vLLM takes its share of the whole GPU, also of a time slice.
    return f"{usual:.2f}" if slices == 1 else f"{math.floor(usual / slices * 1000) / 1000:g}"


def _vllm_parallelism(plan: InferencePlan) -> Flags:
    """Returns sizes other than 1; all sizes if the user set one, because the wrapper fills in missing ones."""
    sizes = {
        "tensor-parallel-size": plan.parallelism.tensor,
        "pipeline-parallel-size": plan.parallelism.pipeline,
        "data-parallel-size": plan.parallelism.data,
    }
    return {name: str(size) for name, size in sizes.items() if size > 1 or sets_parallelism(plan.engine)}


def _vllm_sequences(plan: InferencePlan) -> Flags:
    """Returns the maximum number of concurrent requests: the user's, or what fits beside a hybrid model's state."""
    divided = plan.parallelism
    most = plan.engine.max_num_seqs or max_sequences(
        plan.preset,
        plan.instance,
        tensor=divided.tensor,
        stages=divided.pipeline,
        share=plan.engine.gpu_memory_utilization,
    )
    return {"max-num-seqs": str(most)} if most else {}
