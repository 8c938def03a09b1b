"""Loads names and programs in ways that keep import time low (see docs/internals/benchmarks.md).

The `__init__` of such a package imports its names for type checkers only; its `__getattr__` calls `load`.
"""

import gc
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any


def load(package: str, name: str, module_of: Mapping[str, str]) -> Any:
    """Imports a name of a package from its module in `module_of`, and sets it as an attribute of the package.

    Raises:
        AttributeError: `module_of` has no such name.
    """
    module = module_of.get(name)
    if module is None:
        message = f"module {package!r} has no attribute {name!r}"
        raise AttributeError(message)
    value = getattr(import_module(f"{package}.{module}"), name)
    setattr(sys.modules[package], name, value)
    return value


def load_program(module: str) -> Any:
    """Imports the module of a program without garbage collections, which find nothing and take a tenth of the time.

    What was imported stays for the life of the process, and is excluded from later collections.
    """
    gc.disable()
    try:
        return import_module(module)
    finally:
        gc.freeze()
        gc.enable()
