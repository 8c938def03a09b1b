"""The share of memory for offloaded cache becomes vLLM's flags."""

from pathlib import Path

import pytest
from kaito_presets.vllm.offload import GIB, offload_flags
from kaito_presets.vllm.options import read_options


@pytest.mark.parametrize(
    ("arguments", "text", "size"),
    [
        ([], "kv_cache_cpu_memory_utilization: 0.5", "32.0"),
        ([], "vllm: {}", None),
        ([], "kv_cache_cpu_memory_utilization: 0", None),
        (["--kaito-kv-cache-cpu-memory-utilization=0"], "kv_cache_cpu_memory_utilization: 0.5", None),
        (["--kaito-kv-cache-cpu-memory-utilization=0.25"], "kv_cache_cpu_memory_utilization: 0.5", "16.0"),
        ([], "{kv_cache_cpu_memory_utilization: 0.5, vllm: {kv-offloading-size: 4}}", None),
    ],
)
def test_operators_flag_takes_precedence_over_the_file(
    tmp_path: Path, arguments: list[str], text: str, size: str | None
) -> None:
    file = tmp_path / "inference_config.yaml"
    file.write_text(text)
    plan = read_options([*arguments, f"--kaito-config-file={file}"])
    flags = offload_flags(plan, plan.engine, 64 * GIB)
    assert flags == ({} if size is None else {"kv-offloading-size": size, "kv-offloading-backend": "native"})
