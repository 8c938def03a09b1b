"""Reads the CPU time and the peak resident memory of a process from /proc."""

import os
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU time and memory of a process so far."""

    cpu_seconds: float
    peak_rss_mib: float
    rss_mib: float


def cost_of(pid: int) -> Cost:
    """The cost of a running process (Linux only)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Vm")
    )
    return Cost(
        cpu_seconds=(int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND,
        peak_rss_mib=int(status["VmHWM"].split()[0]) / 1024,
        rss_mib=int(status["VmRSS"].split()[0]) / 1024,
    )
