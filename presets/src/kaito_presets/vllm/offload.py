"""Computes vLLM's flags for offloading the key/value cache to the memory of the pod.

Used by `main`. The operator's flag takes precedence over the key in `inference_config.yaml`, because the controller
disables the offload for models and parallelism that vLLM cannot offload.
"""

from collections.abc import Mapping
from typing import Any, Final

from kaito_presets.vllm.options import WrapperPlan

GIB: Final = 2**30
_VLLM_FLAGS: Final = ("kv-offloading-size", "kv-transfer-config")
"""Flags of vLLM with which the user configures the offload directly."""


def offload_flags(plan: WrapperPlan, flags: Mapping[str, Any], memory_bytes: int) -> dict[str, Any]:
    """Computes the flags; returns none if no share is configured or the user sets vLLM's flags directly."""
    share = plan.options.kaito_kv_cache_cpu_memory_utilization
    if share is None:
        share = plan.config.kv_cache_cpu_memory_utilization
    if not share or any(name in flags for name in _VLLM_FLAGS):
        return {}
    size = share * memory_bytes / GIB
    return {"kv-offloading-size": f"{size:.1f}", "kv-offloading-backend": "native"} if size >= 0.1 else {}
