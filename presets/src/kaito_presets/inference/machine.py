"""Reads the memory and load of the machine and its GPUs.

Called by the metrics of server and tuning job and by the memory estimates. Returns what can be read without
importing anything heavy: GPUs only once torch has been imported by somebody else, CPU figures only where
psutil is installed.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CGROUP_MEMORY_LIMIT_FILES = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Version 2, version 1. A container sees the host's memory in /proc, but is killed at this limit."""
CGROUP_MEMORY_USAGE_FILES = (
    Path("/sys/fs/cgroup/memory.current"),
    Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One GPU now."""

    id: str
    name: str
    used_bytes: int
    total_bytes: int
    load: float | None = None
    celsius: int | None = None


@dataclass(frozen=True, slots=True)
class MachineReading:
    """CPU and host memory now."""

    load_percentage: float
    physical_cores: int
    total_cores: int
    used_bytes: int
    total_bytes: int
    available_bytes: int
    resident_bytes: int


def read_gpus() -> list[GpuReading]:
    """Every visible GPU; empty without torch or without GPUs."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    readings: list[GpuReading] = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        load, celsius = _gpu_sensors(torch, index)
        readings.append(GpuReading(str(index), torch.cuda.get_device_name(index), total - free, total, load, celsius))
    return readings


def _gpu_sensors(torch: Any, index: int) -> tuple[float | None, int | None]:
    """Load and temperature need NVML's Python binding, which an image may not have."""
    try:
        return torch.cuda.utilization(index) / 100, int(torch.cuda.temperature(index))
    except (ImportError, RuntimeError):
        return None, None


def read_machine() -> MachineReading | None:
    """CPU and memory within the container's limit, or None without psutil."""
    try:
        import psutil
    except ImportError:
        return None
    memory = psutil.virtual_memory()
    limit, usage = _first_number(CGROUP_MEMORY_LIMIT_FILES), _first_number(CGROUP_MEMORY_USAGE_FILES)
    total, used, available = memory.total, memory.used, memory.available
    if limit is not None and limit < total:
        used = min(limit, usage if usage is not None else used)
        total, available = limit, min(available, limit - used)
    return MachineReading(
        load_percentage=psutil.cpu_percent(interval=None),
        physical_cores=psutil.cpu_count(logical=False) or 1,
        total_cores=psutil.cpu_count() or 1,
        used_bytes=used,
        total_bytes=total,
        available_bytes=available,
        resident_bytes=psutil.Process().memory_info().rss,
    )


def _first_number(files: tuple[Path, ...]) -> int | None:
    for file in files:
        try:
            return int(file.read_text(encoding="ascii"))
        except (OSError, ValueError):  # "max" in version 2 means no limit
            continue
    return None
