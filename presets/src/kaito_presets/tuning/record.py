"""Files of a run besides the adapter: metadata, fingerprint, completion marker, checkpoints.

Used by `run`. `kaito_adapter.json` is part of the adapter image. `fine_tuning_completed.txt` (upstream's name) exists
after the training. A run resumes only from a complete checkpoint of a run with the same fingerprint.
"""

import datetime as dt
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, Final

from kaito_presets import __version__
from kaito_presets.tuning.config import Method, TrainingConfig
from kaito_presets.tuning.dataset import Dataset

METADATA_FILE: Final = "kaito_adapter.json"
COMPLETED_FILE: Final = "fine_tuning_completed.txt"
FINGERPRINT_FILE: Final = "run_fingerprint.txt"
ADAPTER_FILES: Final = ("adapter_config.json", "adapter_model.safetensors")


def fingerprint(config: TrainingConfig, method: Method, source: str, dataset: Dataset) -> str:
    """Computes a digest of configuration, model and data; a run must not resume from checkpoints of another digest."""
    digest = hashlib.sha256()
    digest.update(json.dumps([config.model_dump(mode="json"), method, source], sort_keys=True).encode())
    for example in (*dataset.train, *dataset.evaluate):
        digest.update(repr(example).encode())
    return digest.hexdigest()


def claim_output_directory(output: Path, run: str) -> None:
    """Assigns the output directory to the run with the fingerprint `run`; removes files of another run."""
    output.mkdir(parents=True, exist_ok=True)
    file = output / FINGERPRINT_FILE
    if file.is_file() and file.read_text(encoding="ascii").strip() == run:
        return
    for stale in output.glob("checkpoint-*"):
        shutil.rmtree(stale)
    (output / COMPLETED_FILE).unlink(missing_ok=True)
    file.write_text(run, encoding="ascii")


def is_completed(output: Path) -> bool:
    """Returns whether the adapter is complete, so that only its push may be missing."""
    return all((output / name).is_file() for name in (*ADAPTER_FILES, COMPLETED_FILE))


def last_checkpoint(output: Path) -> Path | None:
    """Returns the newest complete checkpoint; removes incomplete ones, which a kill during a save leaves behind."""
    found: list[tuple[int, Path]] = []
    for path in output.glob("checkpoint-*"):
        try:
            step = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))["global_step"]
            found.append((int(step), path))
        except (OSError, ValueError, KeyError, TypeError):
            # The trainer writes this file last, so a checkpoint without it is incomplete.
            shutil.rmtree(path, ignore_errors=True)
    return max(found)[1] if found else None


def write_metadata(output: Path, **facts: Any) -> None:
    """Writes the metadata of the adapter, then the completion marker."""
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    document = {"created": now, "made_by": f"kaito-tuning {__version__}", **facts}
    (output / METADATA_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    (output / COMPLETED_FILE).write_text(f"fine tuning completed at {now}\n", encoding="utf-8")
