"""Reads memory and load of the container, the machine and its GPUs.

Called by the metrics of the inference server and by the memory estimates. Imports neither torch nor psutil at start-up:
GPUs are reported once another module has imported torch, CPU load and used memory where psutil is installed.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

CGROUP_MEMORY_LIMIT_FILES: Final = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Files of control groups version 2 and version 1. A container sees the host's memory in `/proc`, but the kernel kills
it at this limit."""

CGROUP_MEMORY_USAGE_FILES: Final = (
    Path("/sys/fs/cgroup/memory.current"),
    Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)

MEMINFO_FILE: Final = Path("/proc/meminfo")


@dataclass(frozen=True, slots=True)
class GpuReading:
    """Memory and load of one GPU at the time of the call."""

    id: str
    name: str
    used_bytes: int
    total_bytes: int
    load: float | None = None
    """0 to 1; None if NVML is not available."""
    celsius: int | None = None


@dataclass(frozen=True, slots=True)
class MachineReading:
    """CPU load and memory within the container's limit at the time of the call."""

    load_percentage: float
    physical_cores: int
    total_cores: int
    used_bytes: int
    total_bytes: int
    available_bytes: int
    resident_bytes: int


def read_gpus() -> list[GpuReading]:
    """Reads every visible GPU; returns an empty list without torch or without GPUs."""
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
    """Reads load and temperature, which need NVML's Python binding; an image may lack it."""
    try:
        return torch.cuda.utilization(index) / 100, int(torch.cuda.temperature(index))
    except (ImportError, RuntimeError):
        return None, None


def read_machine() -> MachineReading | None:
    """Reads CPU load and memory; returns None without psutil."""
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


def read_memory_limit(limits: tuple[Path, ...] = CGROUP_MEMORY_LIMIT_FILES, meminfo: Path = MEMINFO_FILE) -> int:
    """Reads the bytes of memory that the container may use, without psutil.

    Returns the limit of the container or the memory of the machine, whichever is less; 0 if neither can be read.
    """
    total = _read_total_memory(meminfo)
    limit = _first_number(limits)
    if limit is None:
        return total
    return min(limit, total) if total else limit


def _first_number(files: tuple[Path, ...]) -> int | None:
    for file in files:
        try:
            return int(file.read_text(encoding="ascii"))
        except (OSError, ValueError):  # version 2 of control groups writes "max" for no limit
            continue
    return None


def _read_total_memory(meminfo: Path) -> int:
    try:
        for line in meminfo.read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(":")
            if name == "MemTotal":
                return int(value.split()[0]) * 1024  # the unit is kB
    except (OSError, ValueError, IndexError):
        pass
    return 0
