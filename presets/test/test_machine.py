"""Readings of the machine: the memory limit of the container."""

from pathlib import Path

from kaito_presets.machine import read_memory_limit


def test_memory_is_the_lesser_of_container_limit_and_machine(tmp_path: Path) -> None:
    limit, meminfo = tmp_path / "memory.max", tmp_path / "meminfo"
    meminfo.write_text("MemFree: 1 kB\nMemTotal:  1048576 kB\n")
    assert read_memory_limit((limit,), meminfo) == 2**30
    limit.write_text("max\n")
    assert read_memory_limit((limit,), meminfo) == 2**30
    limit.write_text(f"{2**30 // 2}\n")
    assert read_memory_limit((limit,), meminfo) == 2**30 // 2
    assert read_memory_limit((), tmp_path / "absent") == 0
