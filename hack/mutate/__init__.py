"""Mutation testing: change the code in small ways and see whether a test notices."""

import site
import sys
from pathlib import Path

# libcst, mutmut and coverage come from an environment of their own, after the packages of the environment that runs the
# tests: `.venv` and `presets/.venv` need no mutation tools, and their versions of shared packages win.
_VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
site.addsitedir(str(Path(__file__).parents[2] / ".venv-mutate" / "lib" / _VERSION / "site-packages"))
