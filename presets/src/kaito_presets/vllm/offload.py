"""Offloads the key-value cache to the pod's memory: the share that the user asked for, in vLLM's own flags.

Called by `main`. The operator's flag comes before the key of `inference_config.yaml`: the controller switches the
offload off for models and ways of running that vLLM cannot offload.
"""

from collections.abc import Mapping
from typing import Any, Final

from kaito_presets.vllm.options import WrapperPlan

GIB: Final = 2**30
_OWN_FLAGS: Final = ("kv-offloading-size", "kv-transfer-config")
"""Flags with which the user decides about offloading in vLLM's own words."""


def offload_flags(plan: WrapperPlan, flags: Mapping[str, Any], memory_bytes: int) -> dict[str, Any]:
    """vLLM's flags for the offload; none when no share is configured or the user sets vLLM's flags directly."""
    share = plan.own.kaito_kv_cache_cpu_memory_utilization
    if share is None:
        share = plan.config.kv_cache_cpu_memory_utilization
    if not share or any(name in flags for name in _OWN_FLAGS):
        return {}
    size = share * memory_bytes / GIB
    return {"kv-offloading-size": f"{size:.1f}", "kv-offloading-backend": "native"} if size >= 0.1 else {}
