"""Locates the environment of the serving software, and the model that all pods serve locally.

The environment is created by `make presets-env` in a checkout (`presets/.venv`), or named by `--presets`.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kaito.local.processes import run

ENVIRONMENT_VARIABLE = "KAITO_PRESETS"


class ModelMissing(Exception):
    """The directory of `--model` does not contain a model."""


class PresetsMissing(Exception):
    """The serving software is not installed; the message contains the command that installs it."""

    def __init__(self, tried: list[Path]) -> None:
        places = ", ".join(map(str, tried))
        super().__init__(
            f"the serving software is not installed (looked in {places}): run `make presets-env` in a checkout, "
            f"or install kaito-presets[serving] somewhere and name that environment with --presets"
        )


def find(named: Path | None) -> Path:
    """The presets environment's folder.

    Raises:
        PresetsMissing: it is neither in the named folder nor in the default ones.
    """
    from_environment = os.environ.get(ENVIRONMENT_VARIABLE)
    checkout = Path(__file__).resolve().parents[2] / "presets" / ".venv"
    candidates = (
        [named] if named else [Path(from_environment)] if from_environment else [Path("presets/.venv"), checkout]
    )
    for candidate in candidates:
        if (candidate / "bin" / "kaito-inference").is_file():
            return candidate.resolve()
    raise PresetsMissing(candidates)


@dataclass(frozen=True, slots=True)
class LocalModel:
    """The model that all pods serve, in place of the model of their preset."""

    directory: Path
    description: str
    """What a reader of its answers has to know."""


TINY: Final = "tiny"
REAL: Final = "SmolLM2-135M-Instruct"
COMPLETE: Final = "kaito-complete-3"
"""Marker file of a complete directory of `REAL`; `hack.models.smollm2` writes it.

The directory is renamed into place with it, so that an interrupted conversion is repeated. The number changes with the
files, so that older conversions are repeated as well."""


def models_cache() -> Path:
    """Returns the folder of models in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kaito" / "models"


async def local_model(named: str, presets: Path, folder: Path, progress: Callable[[str], None]) -> LocalModel:
    """Returns the model of `--model`. The tiny one is created on first use (seeded, below 10 MB) in the user's cache.

    Args:
        named: a directory, `tiny`, or empty for the default.
        presets: environment with the serving software.
        folder: for the log of the creation.
        progress: called with a line for a long step.

    Raises:
        ModelMissing: the directory does not contain a model.
        ChildEnded: creating the tiny model failed.
    """
    cache = models_cache()
    if named and named != TINY:
        directory = Path(named).resolve()
        if not (directory / "config.json").is_file():
            raise ModelMissing(f"--model: {directory} does not contain config.json")
        return LocalModel(directory, f"{directory.name} in place of the preset's model")
    if not named and (cache / REAL / COMPLETE).is_file():
        return LocalModel(cache / REAL, f"{REAL}, 135 million parameters, in place of the preset's model")
    model = cache / "tiny-phi-3"
    if not (model / "config.json").is_file():
        progress("creating a tiny model with random weights (once, about ten seconds)")
        log = folder / "tiny-model.log"
        model.parent.mkdir(parents=True, exist_ok=True)
        await run("kaito-tiny-model", [presets / "bin" / "kaito-tiny-model", model], log, env=dict(os.environ))
    return LocalModel(model, "a tiny model with random weights: the answer is meaningless, the pipeline is real")
