"""The parts of a GPU's memory add up to what decides whether a model fits."""

from dataclasses import replace

import pytest

from kaito.models import catalog, instance_types
from kaito.models.engine import EngineSettings
from kaito.models.errors import PlanError
from kaito.models.gpu import GIB
from kaito.models.memory import gpu_memory
from kaito.models.parallelism import load_of
from kaito.models.planning import InferencePlan, plan_inference, plan_tuning
from kaito.models.sizing import transformers_need, tuning_need, vllm_need_per_gpu

SIZES = instance_types.current("azure")


def plans() -> list[InferencePlan]:
    found: list[InferencePlan] = []
    for preset in catalog.presets():
        for size in SIZES:
            try:
                found.append(plan_inference(preset, size, adapters=0))
            except PlanError:
                continue
    return found


def test_the_parts_of_every_plan_add_up_to_the_need_and_fit() -> None:
    compared = 0
    for plan in plans():
        memory = gpu_memory(plan)
        divided = plan.parallelism
        if plan.runtime == "vllm":
            needed = vllm_need_per_gpu(
                plan.preset,
                plan.instance.gpu,
                tensor=divided.tensor,
                stages=divided.pipeline,
                load=load_of(plan.preset, plan.engine),
            )
        else:
            needed = transformers_need(plan.preset, plan.instance.gpus, context=memory.context) / plan.instance.gpus
        assert memory.needed == pytest.approx(needed)
        assert min(memory.weights, memory.overhead, memory.cache) > 0, plan.preset.name
        assert memory.adapters == 0
        assert memory.usable < memory.total
        if plan.runtime == "vllm":
            assert memory.free >= 0
        compared += 1
    assert compared > 400


def test_settings_and_adapters_change_their_part_only() -> None:
    preset, size = catalog.get("llama-3.1-8b-instruct"), instance_types.get("Standard_NC24ads_A100_v4")
    usual = gpu_memory(plan_inference(preset, size, runtime="vllm"))
    long = gpu_memory(plan_inference(preset, size, runtime="vllm", engine=EngineSettings(max_model_len=65536)))
    assert long.cache == pytest.approx(usual.cache * 32)
    assert replace(long, cache=usual.cache, context=usual.context) == usual
    adapted = gpu_memory(plan_inference(preset, size, runtime="vllm", adapters=2), adapters=2)
    assert adapted.adapters > 0
    assert replace(adapted, adapters=0.0) == usual
    share = gpu_memory(plan_inference(preset, size, runtime="vllm", engine=EngineSettings(gpu_memory_utilization=0.5)))
    assert share.usable == size.memory_per_gpu / 2


def test_a_model_that_does_not_fit_has_negative_free_memory() -> None:
    preset, size = catalog.get("phi-3-medium-4k-instruct"), instance_types.get("Standard_NC6s_v3")
    assert gpu_memory(plan_inference(preset, size, bypass_size=True)).free < 0


def test_a_hybrid_model_has_state() -> None:
    preset, size = catalog.get("qwen3.6-27b"), instance_types.get("Standard_NC24ads_A100_v4")
    assert gpu_memory(plan_inference(preset, size)).state > 0


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_tuning_has_weights_and_6_gib_for_the_rest(method: str) -> None:
    preset, size = catalog.get("phi-3-mini-4k-instruct"), instance_types.get("Standard_NC48ads_A100_v4")
    memory = gpu_memory(plan_tuning(preset, size, method=method))
    assert memory.overhead == 3 * GIB
    assert memory.needed == pytest.approx(tuning_need(preset, method) / 2)
    assert (memory.cache, memory.context) == (0, 0)
