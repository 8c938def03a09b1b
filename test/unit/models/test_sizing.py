"""Sizing: upstream's formula with its test vectors, and cases that it estimates wrongly."""

import math

import pytest

from kaito.models import catalog, instance_types
from kaito.models.gpu import GIB
from kaito.models.sizing import (
    GpuTooSmall,
    Load,
    transformers_need,
    tuning_need,
    upstream_estimate,
    utilization,
    vllm_need_per_gpu,
)

# size GiB, bytes a token, node GPU GiB, GPUs, context -> least GPUs, nodes, weight budget GiB
VECTORS = [
    (14.19, 524288, 24, 1, 2048, 1, 1, 16.057),
    (14.19, 131072, 24, 1, 131072, 9, 9, 1.771),
    (27.3, 204800, 24, 1, 2048, 2, 2, 16.637),
    (27.3, 204800, 48, 2, 2048, 2, 1, 16.824),
    (131.42, 327680, 80, 1, 2048, 3, 3, 61.214),
    (131.42, 327680, 160, 2, 2048, 3, 2, 61.512),
    (131.42, 327680, 640, 8, 2048, 3, 1, 61.735),
    (641.3, 70272, 640, 8, 2048, 11, 2, 61.794),
    (641.3, 70272, 1128, 8, 2048, 6, 1, 110.594),
    (60.77, 73728, 160, 2, 2048, 2, 1, 61.743),
    (7.5, 131072, 10, 1, 2048, 2, 2, 5.571),
]


@pytest.mark.parametrize(("size", "kv", "memory", "gpus", "context", "least", "nodes", "budget"), VECTORS)
def test_upstream_formula_gives_upstream_numbers(
    size: float, kv: int, memory: int, gpus: int, context: int, least: int, nodes: int, budget: float
) -> None:
    found = upstream_estimate(
        weights=size * GIB, kv_bytes_per_token=kv, node_memory=memory * GIB, gpus=gpus, context=context
    )

    assert (found.gpus, found.nodes) == (least, nodes)
    assert math.isclose(found.weight_budget / GIB, budget, abs_tol=0.0006)


def test_upstream_formula_rejects_a_gpu_smaller_than_the_overhead() -> None:
    with pytest.raises(GpuTooSmall, match=r"1\.7 GiB usable on one GPU, 2\.3 GiB needed beside the weights"):
        upstream_estimate(weights=16 * GIB, kv_bytes_per_token=0, node_memory=2 * GIB, gpus=1)


def test_latent_attention_cache_is_not_divided_by_tensor_parallel_ranks() -> None:
    preset, h200 = catalog.get("deepseek-r1-0528"), instance_types.get("Standard_ND96isr_H200_v5")
    base, longer = (vllm_need_per_gpu(preset, h200.gpu, tensor=8, load=Load(context=n)) for n in (0, 100_000))

    assert math.isclose(longer - base, 100_000 * preset.kv_bytes_per_token, rel_tol=1e-9)


def test_phi_3_mini_fits_on_a_v100_with_its_context() -> None:
    preset, v100 = catalog.get("phi-3-mini-4k-instruct"), instance_types.get("Standard_NC6s_v3")

    assert transformers_need(preset, 1, context=4096) <= v100.gpu_memory * 0.92


def test_utilization_is_lower_on_a10_only_by_exact_name() -> None:
    a10, a10g = instance_types.get("Standard_NV36ads_A10_v5"), instance_types.get("g5.xlarge", "aws")

    assert (utilization(a10.gpu), utilization(a10g.gpu)) == (0.82, 0.92)


def test_qlora_needs_much_less_than_lora() -> None:
    preset = catalog.get("phi-3-medium-4k-instruct")

    assert tuning_need(preset, "QLoRA") < 16 * GIB < tuning_need(preset, "lora")
