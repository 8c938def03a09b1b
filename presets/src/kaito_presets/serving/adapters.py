"""Finds the adapters that a container has mounted and pairs them with their strengths; torch is not needed
for that.

Called by `main` before anything heavy is imported, so that a missing or broken adapter is reported in
milliseconds. Guarantees that every directory entry is accounted for: an adapter, or an error naming it
(upstream skips what it does not like and serves the base model without a word).
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
_NOT_ADAPTERS = frozenset({"lost+found"})
"""What a freshly formatted volume brings along."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """One LoRA adapter on disk."""

    name: str
    path: Path
    strength: float
    rank: int
    base_model: str | None


def find_adapters(directory: Path, strengths: Mapping[str, float]) -> tuple[Adapter, ...]:
    """The adapters below `directory`, by name.

    Raises:
        AdapterError: a directory is not a readable adapter, or a strength names an adapter that is not there.
    """
    check_readable(directory)
    entries = sorted(directory.iterdir()) if directory.is_dir() else []
    folders = [
        entry
        for entry in entries
        if entry.is_dir() and not entry.name.startswith(".") and entry.name not in _NOT_ADAPTERS
    ]
    adapters = tuple(_read_adapter(folder, strengths.get(folder.name, 1.0)) for folder in folders)
    missing = sorted(set(strengths) - {adapter.name for adapter in adapters})
    if missing:
        raise AdapterError(missing[0], f"a strength is given but {directory / missing[0]} does not exist")
    return adapters


def _read_adapter(folder: Path, strength: float) -> Adapter:
    name = folder.name
    try:
        check_readable(folder)
    except ModelLoadError as error:
        raise AdapterError(name, str(error)) from error
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AdapterError(name, f"{folder} holds no {CONFIG_FILE}") from None
    except (OSError, ValueError) as error:
        raise AdapterError(name, f"{CONFIG_FILE} cannot be read: {error}") from error
    if not is_object(config) or not isinstance(config.get("r"), int):
        raise AdapterError(name, f"{CONFIG_FILE} is not a LoRA configuration (no integer 'r')")
    if not (folder / WEIGHTS_FILE).is_file():
        raise AdapterError(name, f"{folder} holds no {WEIGHTS_FILE}")
    base = config.get("base_model_name_or_path")
    return Adapter(name, folder, strength, config["r"], base if isinstance(base, str) else None)
