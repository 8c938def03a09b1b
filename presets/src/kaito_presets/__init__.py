"""The software inside Kaito's model images: inference server, vLLM wrapper, tuning job and the image
transport of adapters.

Called by the containers that the workspace controller generates (see the commands in `presets/README.md`).
Importing this package imports neither torch nor transformers; only the `backend` modules of inference and
tuning do, and only when a model is really loaded.
"""

from importlib.metadata import version

__version__ = version("kaito-presets")
