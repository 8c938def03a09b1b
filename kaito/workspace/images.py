"""Names the container images of preset pods.

The runtime of the plan determines the image, never the preset: the images contain programs, and the weights come from
another source (`kaito.models.weights`). Tags are the version of the controller.
"""

from functools import cache
from importlib.metadata import version
from typing import Final

from kaito.models.preset import RuntimeName
from kaito.workspace.settings import WorkspaceSettings

SERVING: Final = "kaito-serving"
"""Image of the transformers server and of the tuning job."""

VLLM: Final = "kaito-vllm"
"""Image of vLLM."""


def runtime_image(runtime: RuntimeName, settings: WorkspaceSettings) -> str:
    """Returns the image that serves with the runtime. Tuning uses that of `transformers`."""
    if runtime == "vllm":
        return settings.vllm_image or default_image(VLLM, settings)
    return settings.serving_image or default_image(SERVING, settings)


def default_image(name: str, settings: WorkspaceSettings) -> str:
    """Returns an image of this version in the registry of the settings."""
    return f"{settings.image_registry}/{name}:{_version()}"


@cache
def _version() -> str:
    return version("kaito")
