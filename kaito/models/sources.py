"""Where a model's weights come from: a directory in the image, or a repository to download at start."""

from dataclasses import dataclass
from typing import Final, final

from kaito.models.preset import Preset, RuntimeName

WEIGHTS_DIRECTORY: Final[dict[RuntimeName, str]] = {
    "transformers": "/workspace/tfs/weights",
    "vllm": "/workspace/vllm/weights",
}
"""Where model images keep the weights; both are links to `/workspace/weights` (upstream Kaito's image layout)."""

DOWNLOAD_DIRECTORY: Final = "/workspace/weights"
"""Where downloaded weights go; a volume."""


@final
@dataclass(frozen=True, slots=True)
class WeightsInImage:
    """The image that runs holds the weights, or a volume with them is mounted."""

    directory: str = ""
    """Where; empty is the runtime's own place in the image."""

    def path(self, runtime: RuntimeName) -> str:
        """The directory, for a server of that runtime."""
        return self.directory or WEIGHTS_DIRECTORY[runtime]


@final
@dataclass(frozen=True, slots=True)
class Download:
    """The server downloads the weights from Hugging Face when it starts."""

    repository: str
    revision: str = ""
    """Commit; empty is the newest."""


ModelSource = WeightsInImage | Download


def model_source(preset: Preset, *, private_image: bool = False) -> ModelSource:
    """Where the preset's weights come from: its image where there is one (or the user's own), else a download."""
    if private_image or preset.image_tag:
        return WeightsInImage()
    return Download(preset.repository, preset.revision)
