"""What a run leaves behind besides the adapter: who made it, from what, and how far an interrupted run got.

Used by `run` and `train`. `kaito_adapter.json` travels with the adapter; the sentinel
`fine_tuning_completed.txt` (upstream's name) says that training is done; checkpoints count only if they are
complete and belong to the same run.
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
SENTINEL_FILE: Final = "fine_tuning_completed.txt"
FINGERPRINT_FILE: Final = "run_fingerprint.txt"
ADAPTER_FILES: Final = ("adapter_config.json", "adapter_model.safetensors")


def fingerprint(config: TrainingConfig, method: Method, source: str, dataset: Dataset) -> str:
    """A digest of everything that makes a run this run; a different one must not resume from its
    checkpoints."""
    digest = hashlib.sha256()
    digest.update(json.dumps([config.model_dump(mode="json"), method, source], sort_keys=True).encode())
    for example in (*dataset.train, *dataset.evaluate):
        digest.update(repr(example).encode())
    return digest.hexdigest()


def claim_output(output: Path, run: str) -> None:
    """Make `output` belong to `run`: what another run left there is removed."""
    output.mkdir(parents=True, exist_ok=True)
    mark = output / FINGERPRINT_FILE
    if mark.is_file() and mark.read_text(encoding="ascii").strip() == run:
        return
    for stale in output.glob("checkpoint-*"):
        shutil.rmtree(stale)
    (output / SENTINEL_FILE).unlink(missing_ok=True)
    mark.write_text(run, encoding="ascii")


def is_completed(output: Path) -> bool:
    """Whether the adapter of this run is already there (only its push may be missing)."""
    return all((output / name).is_file() for name in (*ADAPTER_FILES, SENTINEL_FILE))


def last_checkpoint(output: Path) -> Path | None:
    """The newest complete checkpoint; incomplete ones, left by a kill in the middle of saving, are
    removed."""
    found: list[tuple[int, Path]] = []
    for path in output.glob("checkpoint-*"):
        try:
            step = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))["global_step"]
            found.append((int(step), path))
        except (OSError, ValueError, KeyError, TypeError):
            # The state is the last file that the trainer writes.
            shutil.rmtree(path, ignore_errors=True)
    return max(found)[1] if found else None


def write_metadata(output: Path, **facts: Any) -> None:
    """Describe the adapter, then set the sentinel."""
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    document = {"created": now, "made_by": f"kaito-tuning {__version__}", **facts}
    (output / METADATA_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    (output / SENTINEL_FILE).write_text(f"fine tuning completed at {now}\n", encoding="utf-8")
