"""Reads the properties of the GPUs with `nvidia-smi`.

Used by `main`. A CUDA context in this process would use GPU memory that the engine needs.
"""

import subprocess
from dataclasses import dataclass

from kaito_presets.errors import ConfigurationError

QUERY = ("nvidia-smi", "--query-gpu=name,memory.total,memory.free,compute_cap", "--format=csv,noheader,nounits")
TIMEOUT_SECONDS = 60
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Gpu:
    """Properties of one GPU."""

    name: str
    total_bytes: int
    free_bytes: int
    capability: tuple[int, int]


def read_gpus() -> tuple[Gpu, ...]:
    """Reads all GPUs; returns an empty tuple without an NVIDIA driver.

    Raises:
        ConfigurationError: `nvidia-smi` fails.
    """
    try:
        result = subprocess.run(QUERY, check=True, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)  # noqa: S603
    except FileNotFoundError:
        return ()
    except (subprocess.SubprocessError, OSError) as error:
        raise ConfigurationError(f"nvidia-smi failed: {error}") from error
    return parse_gpus(result.stdout)


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """Parses the output of `nvidia-smi`.

    Raises:
        ConfigurationError: a line does not have the expected columns.
    """
    gpus: list[Gpu] = []
    for line in text.strip().splitlines():
        try:
            name, total, free, capability = (part.strip() for part in line.rsplit(",", 3))
            major, _, minor = capability.partition(".")
            gpus.append(Gpu(name, int(total) * MIB, int(free) * MIB, (int(major), int(minor or 0))))
        except ValueError as error:
            raise ConfigurationError(f"nvidia-smi: cannot read {line!r}") from error
    return tuple(gpus)
