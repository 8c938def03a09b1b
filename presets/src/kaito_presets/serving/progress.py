"""Progress of the start of a server, as `GET /progress` reports it.

Both servers have a `StartProgress`; the workspace controller polls the route while a pod is not ready. The program that
pulls weights in an init container serves the same document on the same port before the server starts.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, final

from kaito_presets.serving.health import ServerState

Phase = Literal["downloading", "loading", "warming", "ready", "draining"]
"""Weights are downloaded from Hugging Face, read into memory, a test generation or compilation runs, requests are
served, or the server is shutting down."""

INCOMPLETE_SUFFIX: Final = ".incomplete"
"""Suffix of a file that huggingface_hub is writing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartFigures:
    """Measurements of a start that succeeded; 0 for what is unknown."""

    load_seconds: float
    """From the start of loading until requests are served."""
    weights_bytes: int = 0
    """Memory of the weights on this node."""
    cache_tokens: int = 0
    """Tokens of all requests together whose keys and values fit into memory."""
    context_tokens: int = 0
    """Most tokens of one request."""
    cache_bytes: int = 0
    """Memory of the keys and values on a GPU, which is what the engine left of its share; vLLM only."""
    peak_bytes: int = 0
    """Most memory that the program used on a GPU; the transformers server on CUDA only."""

    def document(self) -> dict[str, object]:
        """Returns the field `figures` of the response."""
        return {
            "loadSeconds": round(self.load_seconds, 1),
            "weightsBytes": self.weights_bytes,
            "cacheTokens": self.cache_tokens,
            "contextTokens": self.context_tokens,
            "cacheBytes": self.cache_bytes,
            "peakBytes": self.peak_bytes,
        }


@final
class StartProgress:
    """Phase of the start of a server, and the bytes that are downloaded.

    Args:
        cache: huggingface_hub's cache of the model's weights; None if the weights are in a local directory.
    """

    def __init__(self, cache: Path | None = None) -> None:
        self.is_warming = False
        """Whether the weights are in memory and the server is still loading."""
        self.figures: StartFigures | None = None
        """Measurements, once requests are served."""
        self._cache = cache

    def set_warming(self) -> None:
        """Starts the phase `warming`."""
        self.is_warming = True

    def document(self, state: ServerState) -> dict[str, object]:
        """Returns the body of the response.

        It has the `phase`, in the phase `downloading` the number of `bytes` so far, and in the phase `ready` the
        `figures` of the start.
        """
        phase = self._phase(state)
        if phase == "ready" and self.figures is not None:
            return {"phase": phase, "figures": self.figures.document()}
        if phase == "loading" and self._cache is not None:
            size, is_incomplete = _downloaded(self._cache)
            if is_incomplete:
                return {"phase": "downloading", "bytes": size}
        return {"phase": phase}

    def _phase(self, state: ServerState) -> Phase:
        if state == "Loading":
            return "warming" if self.is_warming else "loading"
        return "ready" if state == "Healthy" else "draining"


def download_cache(model: str, directory: str | None) -> Path | None:
    """Returns the folder in which huggingface_hub stores a model; None if the model is a local directory.

    Args:
        model: directory or Hugging Face id.
        directory: the cache that the options set; by default huggingface_hub's.
    """
    if Path(model).is_dir():
        return None
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    root = Path(directory or os.environ.get("HF_HUB_CACHE") or home / "hub")
    return root / f"models--{model.replace('/', '--')}"


def _downloaded(cache: Path) -> tuple[int, bool]:
    """Returns the bytes in the cache, and whether a file is incomplete."""
    size, is_incomplete = 0, False
    for path in (cache / "blobs").glob("*"):
        try:
            size += path.stat().st_size
        except FileNotFoundError:  # renamed when it became complete
            continue
        is_incomplete = is_incomplete or path.name.endswith(INCOMPLETE_SUFFIX)
    return size, is_incomplete
