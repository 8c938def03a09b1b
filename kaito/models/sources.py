"""Places from which a server loads a model's weights: a directory of the container, or a repository to download."""

from dataclasses import dataclass
from typing import Final, final

from kaito.models.preset import Preset, RuntimeName

WEIGHTS_DIRECTORY: Final = "/workspace/weights"
"""Directory of the weights in every pod: a volume, or part of the user's image."""

IMAGE_DIRECTORY: Final[dict[RuntimeName, str]] = {
    "transformers": "/workspace/tfs/weights",
    "vllm": "/workspace/vllm/weights",
}
"""Directory of the weights in images that contain them. In Kaito's images both are links to `WEIGHTS_DIRECTORY`."""


@final
@dataclass(frozen=True, slots=True)
class LocalWeights:
    """The container has the weights: they are in its image, or a volume with them is mounted."""

    directory: str = ""
    """Directory of the weights; empty for the runtime's default in the image."""

    def path(self, runtime: RuntimeName) -> str:
        """Returns the directory for a runtime."""
        return self.directory or IMAGE_DIRECTORY[runtime]


@final
@dataclass(frozen=True, slots=True)
class Download:
    """The server downloads the weights from Hugging Face when it starts."""

    repository: str
    revision: str = ""
    """Commit; empty for the latest."""


ModelSource = LocalWeights | Download


def download_of(preset: Preset) -> Download:
    """Returns the download of the preset's weights, at the catalog's revision."""
    return Download(preset.repository, preset.revision)
