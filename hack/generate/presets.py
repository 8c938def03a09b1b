"""Makes `kaito_presets` importable for the generators, which run in the environment of the controllers.

The package is not installed there, so its `__init__`, which reads the version from the installation, is not run. The
modules that the generators use (routes, request models, metrics) import neither PyTorch nor transformers.
"""

import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]

if "kaito_presets" not in sys.modules:
    package = ModuleType("kaito_presets")
    package.__path__ = [str(ROOT / "presets" / "src" / "kaito_presets")]
    package.__dict__["__version__"] = (ROOT / "VERSION").read_text(encoding="utf-8").strip()
    sys.modules["kaito_presets"] = package
