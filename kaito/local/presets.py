"""Locates the environment of the serving software, and creates the tiny model that it serves locally.

The environment is created by `make presets-env` in a checkout (`presets/.venv`), or named by `--presets`.
"""

import os
from collections.abc import Callable
from pathlib import Path

from kaito.local.processes import run

ENVIRONMENT_VARIABLE = "KAITO_PRESETS"


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


async def tiny_model(presets: Path, folder: Path, progress: Callable[[str], None]) -> Path:
    """The folder of the tiny model, created on first use (seeded, below 10 MB) in the user's cache.

    Raises:
        ChildEnded: making it failed.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    model = cache / "kaito" / "models" / "tiny-phi-3"
    if not (model / "config.json").is_file():
        progress("creating a tiny model with random weights (once, about ten seconds)")
        log = folder / "tiny-model.log"
        model.parent.mkdir(parents=True, exist_ok=True)
        await run("kaito-tiny-model", [presets / "bin" / "kaito-tiny-model", model], log, env=dict(os.environ))
    return model
