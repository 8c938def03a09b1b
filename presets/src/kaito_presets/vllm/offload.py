"""Offloads the key-value cache to the pod's memory: the share that the user asked for, in vLLM's own flags.

Called by `main`. The operator's flag comes before the key of `inference_config.yaml`: the controller switches the
offload off for models and ways of running that vLLM cannot offload.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from kaito_presets.vllm.options import WrapperPlan

GIB: Final = 2**30
_LIMITS: Final = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Memory limit of the container, in the second and the first version of control groups."""
_MACHINE: Final = Path("/proc/meminfo")
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


def memory_limit(limits: tuple[Path, ...] = _LIMITS, machine: Path = _MACHINE) -> int:
    """Bytes of memory that the container may use: its limit, or the machine's memory; 0 when neither can be read."""
    total = _machine_memory(machine)
    for file in limits:
        try:
            text = file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if text.isdigit():
            return min(int(text), total) if total else int(text)
    return total


def _machine_memory(file: Path) -> int:
    try:
        for line in file.read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(":")
            if name == "MemTotal":
                return int(value.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        return 0
    return 0
