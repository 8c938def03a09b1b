"""Maps images to local programs that run a container's command.

Kaito's images contain the presets' software, so their entry points map to the commands of the presets environment.
Images named `local/...` run their command unchanged. Any other image has no local program and fails to pull, as on a
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
class LocalProgram:
    """The console script that replaces a program of the images."""

    script: str
    model_flag: str = ""
    """The flag of the model, which is set to the pulled weights or to the tiny model."""
    address_flag: str = ""
    """The flag of the listen address, if it listens: all pods share this machine and use the same port."""
    address_variable: str = ""
    """The environment variable for that address, for a program whose command is unchanged."""
    flags: Mapping[str, str] | None = None
    """The flags that it accepts and their local names; None when it is the same program."""


_VLLM_FLAGS = {
    "--model": "--pretrained_model_name_or_path",
    "--served-model-name": "--served_model_name",
    "--port": "--port",
    "--kaito-adapters-dir": "--adapters_dir",
}

ENTRY_POINTS = {
    "/workspace/tfs/inference_api.py": LocalProgram(
        "kaito-inference", "--pretrained_model_name_or_path", address_flag="--host"
    ),
    # vLLM needs a GPU; the transformers server answers the same routes here.
    "/workspace/vllm/inference_api.py": LocalProgram(
        "kaito-inference", "--model", address_flag="--host", flags=_VLLM_FLAGS
    ),
    "/workspace/tfs/fine_tuning.py": LocalProgram("kaito-tuning", "--model", address_variable="KAITO_METRICS_HOST"),
    "/workspace/oci/push_adapter.py": LocalProgram("kaito-push-adapter"),
    "/workspace/oci/pull_adapter.py": LocalProgram("kaito-pull-adapter"),
    "/workspace/oci/pull_model.py": LocalProgram("kaito-pull-model"),
}
"""Programs in the commands of containers (presets/README.md) and their local replacements."""

_WITHOUT_EFFECT = {"--revision", "--code-revision", "--download-dir", "--progress-port"}
"""Flags without effect here: the model is a directory, and all pods share the ports of this machine."""

_WEIGHTS = "/workspace/weights"
"""Mount path of the weights. If they were pulled, they are served instead of the tiny model."""


class NoLocalProgram(Exception):
    """The image has no local program; the message is shown by `kubectl describe`."""


@dataclass(frozen=True, slots=True)
class Launch:
    """A process to start."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    directory: Path


@dataclass(frozen=True, slots=True)
class Place:
    """The pod address and the folders of a container."""

    ip: str
    root: Path
    mounts: Mapping[str, Path]
    """Mount path in the container to folder on this machine."""

    def localized(self, text: str) -> str:
        """The text with every mount path replaced by its folder, longest paths first.

        Folders are not replaced again: the folder of one mount may be below the path of another, such as `/tmp`.
        """
        folders = {path.rstrip("/"): str(folder) for path, folder in self.mounts.items()}
        if not folders:
            return text
        paths = "|".join(re.escape(path) for path in sorted(folders, key=len, reverse=True))
        return re.sub(rf"(?<![\w./-])(?:{paths})(?![\w-])", lambda match: folders[match[0]], text)


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
            NoLocalProgram: the image is neither one of Kaito's nor `local/...`.
        """
        argv = [place.localized(word) for word in (*container.command, *container.args)]
        image = container.image or ""
        address: dict[str, str] = {}
        if not image.startswith(LOCAL_PREFIX):
            argv, address = self._local_command(argv, image, place)
        elif not argv:
            raise NoLocalProgram(f'"{image}": a local image has no entrypoint, so the container needs a command')
        path = f"{self._bin}:{self._environment.get('PATH', '/usr/bin:/bin')}"
        variables = address | {name: place.localized(value) for name, value in env.items()}
        return Launch(tuple(argv), self._environment | {"PATH": path} | variables, place.root)

    def _local_command(self, argv: Sequence[str], image: str, place: Place) -> tuple[list[str], dict[str, str]]:
        """The local command for a command of Kaito's images, and variables it needs here.

        The launcher in the image (`python3`, `accelerate launch`) is left out.
        """
        index = next((number for number, word in enumerate(argv) if word in ENTRY_POINTS), None)
        if index is None:
            raise NoLocalProgram(
                f'"{image}": kaito up pulls no images; it runs the presets\' programs and {LOCAL_PREFIX}* only'
            )
        program = ENTRY_POINTS[argv[index]]
        words = [word for word in argv[index + 1 :] if word.partition("=")[0] not in _WITHOUT_EFFECT]
        flags = [self._flag(word, program, place) for word in words]
        address = [f"{program.address_flag}={place.ip}"] if program.address_flag else []
        variables = {program.address_variable: place.ip} if program.address_variable else {}
        return [str(self._bin / program.script), *filter(None, flags), *address], variables

    def _flag(self, word: str, program: LocalProgram, place: Place) -> str | None:
        """The flag of the local program; None if it does not have it."""
        name, equals, value = word.partition("=")
        if name == program.model_flag:
            pulled = place.mounts.get(_WEIGHTS)
            value = str(pulled if pulled is not None and (pulled / "config.json").is_file() else self._model)
        if program.flags is None:
            return f"{name}{equals}{value}"
        known = program.flags.get(name)
        return f"{known}={value}" if known else None
