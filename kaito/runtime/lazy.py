"""Packages whose names are loaded from their modules at first use: start-up time is a promise.

The `__init__` of such a package imports its names for type checkers only; its `__getattr__` calls `load`.
"""

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any


def load(package: str, name: str, home_of: Mapping[str, str]) -> Any:
    """A name of the package, from the module that `home_of` says; from then on it is there like any other.

    Raises:
        AttributeError: `home_of` has no such name.
    """
    home = home_of.get(name)
    if home is None:
        message = f"module {package!r} has no attribute {name!r}"
        raise AttributeError(message)
    value = getattr(import_module(f"{package}.{home}"), name)
    setattr(sys.modules[package], name, value)
    return value
