"""Checks of the ConfigMap that a Workspace names, with the schema that the programs in the pod use."""

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
from kaito.models.engine import EngineOptions
from kaito.runtime.kinds import ConfigMap
from kaito.workspace.preflight.examination import Examination
from kaito.workspace.preflight.finding import Finding

_NO_OFFLOAD: Final = "--kaito-kv-cache-cpu-memory-utilization=0"

_PROBLEMS_SHOWN: Final = 5


async def file(examination: Examination) -> Iterable[Finding]:
    """The named ConfigMap exists, has the key, and its text is a valid configuration file."""
    workspace = examination.workspace
    part = workspace.tuning or workspace.inference
    if part is None or not part.config:
        return ()
    field, key = ("tuning.config", TRAINING_KEY) if workspace.tuning else ("inference.config", INFERENCE_KEY)
    found = await examination.cluster.config_map(part.config)
    if found is None:
        message = f"ConfigMap {part.config!r} does not exist in namespace {workspace.namespace}"
        return (Finding(conditions.CONFIG_NOT_FOUND, field, message, cure="watched"),)
    if key not in found.data:
        return (_without_key(found, field, key),)
    examination.config = found
    try:
        if workspace.tuning is not None:
            _training(found.data[key]).bits("lora" if workspace.tuning.method.lower() == "lora" else "qlora")
        else:
            examination.engine = _engine(_inference(found.data[key]))
            return tuple(_context(examination, _inference(found.data[key])))
    except ConfigError as error:
        return tuple(_problems(error, field, found, key))
    return ()


def _context(examination: Examination, parsed: InferenceConfigFile) -> Iterable[Finding]:
    """The transformers server's context is within the model's; vLLM's is judged with the plan."""
    wanted, preset = parsed.server().max_model_len, examination.preset
    if wanted is None or preset is None or not preset.context or wanted <= preset.context:
        return
    message = (
        f"is {wanted}, which exceeds the model's maximum context of {preset.context} tokens ({preset.name}): use at "
        f"most {preset.context}, or remove it"
    )
    yield Finding(conditions.INVALID_SPEC, "inference.config[transformers.max_model_len]", message, cure="watched")


async def effect(examination: Examination) -> Iterable[Finding]:
    """Settings of the file that the planned command cannot honor become warnings."""
    workspace, plan = examination.workspace, examination.plan
    if examination.config is None or workspace.tuning is not None or plan is None or plan.serving is None:
        return ()
    parsed = _inference(examination.config.data[INFERENCE_KEY])
    vllm = any("/vllm/" in word for word in plan.serving.command)
    found: list[Finding] = []
    if parsed.kv_cache_cpu_memory_utilization and (not vllm or _NO_OFFLOAD in plan.serving.command):
        why = "this model, or several GPUs that share it, cannot keep it there" if vllm else "it is a setting of vllm"
        found.append(_ineffective("kv_cache_cpu_memory_utilization", why))
    if parsed.transformers and vllm:
        found.append(_ineffective("transformers", f"{plan.serving.model} runs on vllm here"))
    return found


def _ineffective(key: str, why: str) -> Finding:
    return Finding(conditions.CONFIG_INVALID, f"inference.config[{key}]", f"has no effect: {why}", "warning")


def _without_key(found: ConfigMap, field: str, key: str) -> Finding:
    hint = "" if key not in found.binary_data else ": it is binary data, write it as text below data"
    hint = hint or nearest(key, found.data)
    return Finding(
        conditions.CONFIG_NOT_FOUND, field, f"ConfigMap {found.name!r} has no key {key!r}{hint}", cure="watched"
    )


def _problems(error: ConfigError, field: str, found: ConfigMap, key: str) -> Iterable[Finding]:
    where = f"ConfigMap {found.name!r}, {key}"
    for problem in error.problems[:_PROBLEMS_SHOWN]:
        yield Finding(conditions.CONFIG_INVALID, field, f"{where}: {problem}", cure="watched")


@lru_cache(maxsize=64)
def _inference(text: str) -> InferenceConfigFile:
    return parse_inference(text)


@lru_cache(maxsize=64)
def _training(text: str) -> TrainingConfig:
    return parse_training(text, TrainingConfig)


def _engine(parsed: InferenceConfigFile) -> EngineOptions:
    """The sizing's form of the file's flags."""
    flags = parsed.engine()
    return EngineOptions(
        max_model_len=flags.max_model_len,
        gpu_memory_utilization=flags.gpu_memory_utilization,
        tensor_parallel_size=flags.tensor_parallel_size,
        pipeline_parallel_size=flags.pipeline_parallel_size,
        data_parallel_size=flags.data_parallel_size,
        max_num_seqs=flags.max_num_seqs,
        kv_cache_dtype=flags.kv_cache_dtype,
    )
