"""The presets environment: where the serving software is installed, and the tiny model it serves locally.

The environment is made by `make presets-env` in a checkout (`presets/.venv`), or named by `--presets`.
"""

import os
from collections.abc import Callable
from pathlib import Path

from kaito.local.processes import run

ENVIRONMENT_VARIABLE = "KAITO_PRESETS"


class PresetsMissing(Exception):
    """There is no environment with the serving software; the message says how to make one."""

    def __init__(self, tried: list[Path]) -> None:
        places = ", ".join(map(str, tried))
        super().__init__(
            f"the serving software is not installed (looked in {places}): run `make presets-env` in a checkout, "
            f"or install kaito-presets[serving] somewhere and name that environment with --presets"
        )


def find(named: Path | None) -> Path:
    """The presets environment's folder.

    Raises:
        PresetsMissing: neither the named one nor the usual places hold it.
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


async def tiny_model(presets: Path, folder: Path, say: Callable[[str], None]) -> Path:
    """The folder of the tiny model, made on first use (seeded, below 10 MB) and kept in the user's cache.

    Raises:
        ChildEnded: making it failed.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    model = cache / "kaito" / "models" / "tiny-phi-3"
    if not (model / "config.json").is_file():
        say("making a tiny model with random weights (once, about ten seconds)")
        log = folder / "tiny-model.log"
        model.parent.mkdir(parents=True, exist_ok=True)
        await run("kaito-tiny-model", [presets / "bin" / "kaito-tiny-model", model], log, env=dict(os.environ))
    return model
