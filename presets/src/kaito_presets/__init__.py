"""Programs of Kaito's model images: inference server, vLLM wrapper, tuning job, and commands for adapter images.

The workspace-controller generates the containers that run them (see the commands in `presets/README.md`). Importing
this package imports neither torch nor transformers: only `inference.backend`, `tuning.train` and `tiny_model` use these
libraries, and the programs import those modules late.
"""

from importlib.metadata import version

__version__ = version("kaito-presets")
