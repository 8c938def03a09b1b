"""What an image means on this machine: which local program stands in for a container's command.

Kaito's images hold the presets' software, so their entry points map to the commands of the presets environment. Images
named `local/...` run their command as it stands. Any other image has no stand-in and fails to pull, as it would on a
node without network.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from kaito.runtime.kinds import Container

LOCAL_PREFIX = "local/"


@dataclass(frozen=True, slots=True)
class StandIn:
    """The console script that runs here in the place of a program of the images."""

    script: str
    model_flag: str = ""
    """The flag that names the model, which is the tiny one here."""
    address_flag: str = ""
    """The flag for the address it listens on, if it listens: all pods share this machine and use the same port."""
    address_variable: str = ""
    """The environment variable for that address, for a program whose command stays as it is."""
    flags: Mapping[str, str] | None = None
    """The flags it understands and what it calls them; None when it is the same program."""


_VLLM_FLAGS = {
    "--model": "--pretrained_model_name_or_path",
    "--served-model-name": "--served_model_name",
    "--port": "--port",
    "--kaito-adapters-dir": "--adapters_dir",
}

ENTRY_POINTS = {
    "/workspace/tfs/inference_api.py": StandIn(
        "kaito-inference", "--pretrained_model_name_or_path", address_flag="--host"
    ),
    # vLLM needs a GPU; the transformers server answers the same routes here.
    "/workspace/vllm/inference_api.py": StandIn("kaito-inference", "--model", address_flag="--host", flags=_VLLM_FLAGS),
    "/workspace/tfs/fine_tuning.py": StandIn("kaito-tuning", "--model", address_variable="KAITO_METRICS_HOST"),
    "/workspace/oci/push_adapter.py": StandIn("kaito-push-adapter"),
    "/workspace/oci/pull_adapter.py": StandIn("kaito-pull-adapter"),
}
"""Programs of the images (presets/README.md), as they stand in a container's command, and what runs here instead."""

_OF_THE_REAL_MODEL = {"--revision", "--code-revision", "--download-dir"}
"""Flags that mean nothing for a model directory on this machine."""


class NoStandIn(Exception):
    """This machine has nothing to run the image with; the message is what `kubectl describe` shows."""


@dataclass(frozen=True, slots=True)
class Launch:
    """A process to start."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    directory: Path


@dataclass(frozen=True, slots=True)
class Place:
    """Where a container runs: its pod's address and the folders that its volumes and its own files are."""

    ip: str
    root: Path
    mounts: Mapping[str, Path]
    """Mount path in the container to folder on this machine."""

    def localized(self, text: str) -> str:
        """The text with every mount path replaced by its folder, longest paths first."""
        for path in sorted(self.mounts, key=len, reverse=True):
            text = re.sub(rf"(?<![\w./-]){re.escape(path.rstrip('/'))}(?![\w-])", str(self.mounts[path]), text)
        return text


@final
class Images:
    """Turns containers into launches, given the presets environment and a model directory."""

    def __init__(self, presets: Path, model: Path, *, base_environment: Mapping[str, str]) -> None:
        self._bin = presets / "bin"
        self._model = model
        self._environment = dict(base_environment)

    def launch(self, container: Container, place: Place, env: Mapping[str, str]) -> Launch:
        """The local process for a container.

        Raises:
            NoStandIn: the image is neither one of Kaito's nor `local/...`.
        """
        argv = [*container.command, *container.args]
        image = container.image or ""
        address: dict[str, str] = {}
        if not image.startswith(LOCAL_PREFIX):
            argv, address = self._stand_in(argv, image, place)
        elif not argv:
            raise NoStandIn(f'"{image}": a local image has no entrypoint, so the container needs a command')
        path = f"{self._bin}:{self._environment.get('PATH', '/usr/bin:/bin')}"
        variables = address | {name: place.localized(value) for name, value in env.items()}
        program = tuple(place.localized(word) for word in argv)
        return Launch(program, self._environment | {"PATH": path} | variables, place.root)

    def _stand_in(self, argv: Sequence[str], image: str, place: Place) -> tuple[list[str], dict[str, str]]:
        """The local command for a command of Kaito's images, and variables it needs here.

        What launches the program in the image (`python3`, `accelerate launch`) is left out.
        """
        index = next((number for number, word in enumerate(argv) if word in ENTRY_POINTS), None)
        if index is None:
            raise NoStandIn(
                f'"{image}": kaito up pulls no images; it runs the presets\' programs and {LOCAL_PREFIX}* only'
            )
        program = ENTRY_POINTS[argv[index]]
        words = [word for word in argv[index + 1 :] if word.partition("=")[0] not in _OF_THE_REAL_MODEL]
        flags = [self._flag(word, program) for word in words]
        address = [f"{program.address_flag}={place.ip}"] if program.address_flag else []
        variables = {program.address_variable: place.ip} if program.address_variable else {}
        return [str(self._bin / program.script), *filter(None, flags), *address], variables

    def _flag(self, word: str, program: StandIn) -> str | None:
        """One flag as the stand-in takes it; None for one it does not know."""
        name, equals, value = word.partition("=")
        if name == program.model_flag:
            value = str(self._model)
        if program.flags is None:
            return f"{name}{equals}{value}"
        known = program.flags.get(name)
        return f"{known}={value}" if known else None
