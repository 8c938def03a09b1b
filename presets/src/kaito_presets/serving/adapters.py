"""Finds the adapters that are mounted into the container and their strengths.

Both servers call it before they import torch, so that a missing or broken adapter is reported within milliseconds.
Guarantees that every directory is an adapter or an error that names it. (Upstream skips directories that it cannot load
and serves the base model.)
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kaito_presets.environment import check_readable
from kaito_presets.errors import AdapterError, ModelLoadError
from kaito_presets.json_values import is_object

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
_IGNORED_DIRECTORIES = frozenset({"lost+found"})
"""Directories that `mkfs` creates on a new volume."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter on disk."""

    name: str
    path: Path
    strength: float
    rank: int
    base_model: str | None


def find_adapters(directory: Path, strengths: Mapping[str, float]) -> tuple[Adapter, ...]:
    """Returns the adapters below `directory`, sorted by name; the strength of an adapter defaults to 1.

    Raises:
        AdapterError: a directory is not a readable adapter, or `strengths` contains a name without a directory.
    """
    check_readable(directory)
    entries = sorted(directory.iterdir()) if directory.is_dir() else []
    folders = [
        entry
        for entry in entries
        if entry.is_dir() and not entry.name.startswith(".") and entry.name not in _IGNORED_DIRECTORIES
    ]
    adapters = tuple(read_adapter(folder, strengths.get(folder.name, 1.0)) for folder in folders)
    missing = sorted(set(strengths) - {adapter.name for adapter in adapters})
    if missing:
        raise AdapterError(missing[0], f"has a strength, but {directory / missing[0]} does not exist")
    return adapters


def read_adapter(folder: Path, strength: float, *, name: str = "") -> Adapter:
    """Returns the adapter in a directory; its name is by default that of the directory.

    Raises:
        AdapterError: the directory is not a readable adapter.
    """
    name = name or folder.name
    try:
        check_readable(folder)
    except ModelLoadError as error:
        raise AdapterError(name, str(error)) from error
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AdapterError(name, f"{folder} does not contain {CONFIG_FILE}") from None
    except (OSError, ValueError) as error:
        raise AdapterError(name, f"{CONFIG_FILE} cannot be read: {error}") from error
    if not is_object(config) or not isinstance(config.get("r"), int):
        raise AdapterError(name, f"{CONFIG_FILE} is not a LoRA configuration (no integer 'r')")
    if not (folder / WEIGHTS_FILE).is_file():
        raise AdapterError(name, f"{folder} does not contain {WEIGHTS_FILE}")
    base = config.get("base_model_name_or_path")
    return Adapter(name, folder, strength, config["r"], base if isinstance(base, str) else None)
