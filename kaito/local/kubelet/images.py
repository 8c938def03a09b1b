"""What an image means on this machine: which local program stands in for a container's command.

Kaito's images hold the presets' software, so their entry points map to the commands of the presets environment. Images
named `local/...` run their command as it stands. Any other image has no stand-in and fails to pull, as it would on a
node without network.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from kaito.runtime.kinds import Container

LOCAL_PREFIX = "local/"

ENTRY_POINTS = {
    "/workspace/tfs/inference_api.py": "kaito-inference",
    "/workspace/vllm/inference_api.py": "kaito-inference",  # vLLM needs a GPU; the transformers server answers here
    "/workspace/tfs/fine_tuning.py": "kaito-tuning",
    "/workspace/oci/push_adapter.py": "kaito-push-adapter",
    "/workspace/oci/pull_adapter.py": "kaito-pull-adapter",
}
"""Programs of the images (presets/README.md) and the console script that is the same program."""

_LAUNCHER = r"(?:accelerate\s+launch(?:\s+--[\w-]+=\S+)*|python3?)\s+"
_MODEL = re.compile(r"--(?:pretrained[_-]model[_-]name[_-]or[_-]path|model)[= ]\S+")
_SERVER_OPTIONS = re.compile(r"\s--(?:revision|code-revision|download-dir|download_dir)[= ]\S+")


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

    def localised(self, text: str) -> str:
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
        argv: Sequence[str] = [*container.command, *container.args]
        image = container.image or ""
        text = shlex.join(argv)
        if not image.startswith(LOCAL_PREFIX) and not any(path in text for path in ENTRY_POINTS):
            raise NoStandIn(
                f'"{image}": kaito up pulls no images; it runs the presets\' programs and {LOCAL_PREFIX}* only'
            )
        localised = [place.localised(self._stand_in(word, argv, place)) for word in argv]
        if not localised:
            raise NoStandIn(f'"{image}": a local image has no entrypoint, so the container needs a command')
        program = [word for word in localised if word] if image.startswith(LOCAL_PREFIX) else self._direct(localised)
        path = f"{self._bin}:{self._environment.get('PATH', '/usr/bin:/bin')}"
        variables = {name: place.localised(value) for name, value in env.items()}
        return Launch(tuple(program), self._environment | {"PATH": path} | variables, place.root)

    def _stand_in(self, word: str, argv: Sequence[str], place: Place) -> str:
        """One argument (often a whole shell line) with entry points and model replaced."""
        for entry, script in ENTRY_POINTS.items():
            line = re.sub(f"{_LAUNCHER}{re.escape(entry)}", f"{self._bin / script}", word)
            if line != word or word == entry:
                return self._with_model(line.replace(entry, str(self._bin / script)), script, place)
        if any(entry in argv for entry in ENTRY_POINTS):  # argv form: one flag a word
            return _MODEL.sub(lambda match: f"{match.group(0).split('=')[0]}={self._model}", word)
        return word

    def _with_model(self, line: str, script: str, place: Place) -> str:
        """A shell line that serves or tunes the local model at the pod's own address."""
        if script == "kaito-inference":
            line = _SERVER_OPTIONS.sub("", _MODEL.sub(f"--pretrained_model_name_or_path={self._model}", line))
            line = f"{line} --host={place.ip}" if " --" in line else line
        elif script == "kaito-tuning":
            line = _MODEL.sub(f"--model={self._model}", line)
        return line

    def _direct(self, argv: list[str]) -> list[str]:
        """Drop the interpreter before a console script in argv form (`python3 /…/kaito-inference`)."""
        if len(argv) > 1 and argv[0] in {"python", "python3"} and argv[1].startswith(str(self._bin)):
            return argv[1:]
        return argv
