"""Checks of the ConfigMap that a Workspace names, with the schema of the programs in the pod."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from kaito_config import (
    INFERENCE_KEY,
    TRAINING_KEY,
    ConfigError,
    InferenceConfigFile,
    TrainingConfig,
    parse_inference,
    parse_training,
)
from kaito_config.document import nearest

from kaito.api import conditions
from kaito.models.planning import InferencePlan
from kaito.runtime.kinds import ConfigMap
from kaito.workspace.plan import Plan
from kaito.workspace.preflight.context import PreflightContext
from kaito.workspace.preflight.finding import Finding

_NO_OFFLOAD: Final = "--kaito-kv-cache-cpu-memory-utilization=0"

_OFFLOAD_FLAGS: Final = frozenset({"kv-offloading-size", "kv-transfer-config"})
"""Flags of vLLM that configure the offload directly."""

_MAX_PROBLEMS: Final = 5
"""Number of problems of one file that are reported."""


async def file(ctx: PreflightContext) -> Iterable[Finding]:
    """Checks that the ConfigMap exists, has the key, and contains a valid configuration file."""
    workspace = ctx.workspace
    part = workspace.tuning or workspace.inference
    if part is None or not part.config:
        return ()
    field, key = ("tuning.config", TRAINING_KEY) if workspace.tuning else ("inference.config", INFERENCE_KEY)
    found = await ctx.cluster.config_map(part.config)
    if found is None:
        message = f"ConfigMap {part.config!r} does not exist in namespace {workspace.namespace}"
        return (Finding(conditions.CONFIG_NOT_FOUND, field, message, resolved_by="watch"),)
    if key not in found.data:
        return (_without_key(found, field, key),)
    ctx.config = found
    try:
        if workspace.tuning is not None:
            _training(found.data[key]).bits("lora" if workspace.tuning.method.lower() == "lora" else "qlora")
        else:
            ctx.engine = _inference(found.data[key]).engine()
            return tuple(_context(ctx, _inference(found.data[key])))
    except ConfigError as error:
        return tuple(_problems(error, field, found, key))
    return ()


def _context(ctx: PreflightContext, parsed: InferenceConfigFile) -> Iterable[Finding]:
    """Checks the context length of the transformers server; that of vLLM is checked with the plan."""
    wanted, preset = parsed.server().max_model_len, ctx.preset
    if wanted is None or preset is None or not preset.context or wanted <= preset.context:
        return
    message = (
        f"is {wanted}, which exceeds the model's maximum context of {preset.context} tokens ({preset.name}): use at "
        f"most {preset.context}, or remove it"
    )
    yield Finding(conditions.INVALID_SPEC, "inference.config[transformers.max_model_len]", message, resolved_by="watch")


async def effect(ctx: PreflightContext) -> Iterable[Finding]:
    """Reports settings of the file that have no effect on the planned command, as warnings."""
    workspace, plan = ctx.workspace, ctx.plan
    if ctx.config is None or workspace.tuning is not None or plan is None or plan.container is None:
        return ()
    parsed = _inference(ctx.config.data[INFERENCE_KEY])
    vllm = any("/vllm/" in word for word in plan.container.command)
    found: list[Finding] = []
    if parsed.kv_cache_cpu_memory_utilization and (not vllm or _NO_OFFLOAD in plan.container.command):
        not_supported = "this model, or a model on several GPUs, does not support it"
        why = not_supported if vllm else "it is a setting of vllm"
        found.append(_ineffective("kv_cache_cpu_memory_utilization", why))
    if parsed.transformers and vllm:
        found.append(_ineffective("transformers", f"{plan.container.preset} runs on vllm here"))
    return found


async def download(ctx: PreflightContext) -> Iterable[Finding]:
    """Checks that the user's file allows the download of a model that is tuned."""
    plan = ctx.plan
    if ctx.workspace.tuning is None or ctx.config is None or plan is None or plan.container is None:
        return ()
    if (
        not plan.container.weights.downloads
        or not _training(ctx.config.data[TRAINING_KEY]).ModelConfig.local_files_only
    ):
        return ()
    message = (
        "is true, but the model is downloaded: set it to false, or name an artifact in "
        "tuning.preset.presetOptions.weights"
    )
    field = "tuning.config[ModelConfig.local_files_only]"
    return (Finding(conditions.CONFIG_INVALID, field, message, resolved_by="watch"),)


def keeps_host_cache(ctx: PreflightContext) -> bool:
    """Whether the file makes vLLM keep a part of the key-value cache in the memory of the pod."""
    if ctx.config is None or ctx.workspace.tuning is not None:
        return False
    parsed = _inference(ctx.config.data[INFERENCE_KEY])
    return bool(parsed.kv_cache_cpu_memory_utilization) or any(
        name.replace("_", "-") in _OFFLOAD_FLAGS for name in parsed.vllm
    )


def drain_seconds(ctx: PreflightContext, planned: Plan) -> float | None:
    """Returns the time for running requests after SIGTERM that the file sets; None if it sets none.

    It is a setting of the transformers server.
    """
    if ctx.config is None or not isinstance(planned.model, InferencePlan) or planned.model.runtime != "transformers":
        return None
    server = _inference(ctx.config.data[INFERENCE_KEY]).server()
    return server.drain_seconds if "drain_seconds" in server.model_fields_set else None


def _ineffective(key: str, why: str) -> Finding:
    return Finding(conditions.CONFIG_INVALID, f"inference.config[{key}]", f"has no effect: {why}", "warning")


def _without_key(found: ConfigMap, field: str, key: str) -> Finding:
    hint = "" if key not in found.binary_data else ": it is in binaryData, write it as text into data"
    hint = hint or nearest(key, found.data)
    return Finding(
        conditions.CONFIG_NOT_FOUND, field, f"ConfigMap {found.name!r} has no key {key!r}{hint}", resolved_by="watch"
    )


def _problems(error: ConfigError, field: str, found: ConfigMap, key: str) -> Iterable[Finding]:
    where = f"ConfigMap {found.name!r}, {key}"
    for problem in error.problems[:_MAX_PROBLEMS]:
        yield Finding(conditions.CONFIG_INVALID, field, f"{where}: {problem}", resolved_by="watch")


@lru_cache(maxsize=64)
def _inference(text: str) -> InferenceConfigFile:
    return parse_inference(text)


@lru_cache(maxsize=64)
def _training(text: str) -> TrainingConfig:
    return parse_training(text, TrainingConfig)
