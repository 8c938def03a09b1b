"""Sources of a model's weights: a directory in the image, or a repository to download at start."""

from dataclasses import dataclass
from typing import Final, final

from kaito.models.preset import Preset, RuntimeName

WEIGHTS_DIRECTORY: Final[dict[RuntimeName, str]] = {
    "transformers": "/workspace/tfs/weights",
    "vllm": "/workspace/vllm/weights",
}
"""Directory of the weights in model images; both are links to `/workspace/weights`, as in upstream Kaito's images."""

DOWNLOAD_DIRECTORY: Final = "/workspace/weights"
"""Directory of downloaded weights; a volume."""


@final
@dataclass(frozen=True, slots=True)
class WeightsInImage:
    """The image contains the weights, or a volume with them is mounted."""

    directory: str = ""
    """Directory of the weights; empty for the runtime's default in the image."""

    def path(self, runtime: RuntimeName) -> str:
        """Returns the directory for a runtime."""
        return self.directory or WEIGHTS_DIRECTORY[runtime]


@final
@dataclass(frozen=True, slots=True)
class Download:
    """The server downloads the weights from Hugging Face when it starts."""

    repository: str
    revision: str = ""
    """Commit; empty for the latest."""


ModelSource = WeightsInImage | Download


def model_source(preset: Preset, *, private_image: bool = False) -> ModelSource:
    """Returns where the preset's weights come from: its image or the user's private image, otherwise a download."""
    if private_image or preset.image_tag:
        return WeightsInImage()
    return Download(preset.repository, preset.revision)
