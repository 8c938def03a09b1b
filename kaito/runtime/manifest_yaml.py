"""Loads the YAML of manifests with JSON's types only, as kubectl does.

PyYAML reads `2024-01-01` as a date, `22:00` as a number of base 60 and `1e3` as text, and fails at a plain `=`, which
enums of some CustomResourceDefinitions contain. For kubectl, `1e3` is a number and the others are text. Both read `on`,
`yes` and `no` as booleans. `y` and `n` are text here, also for PyYAML, which writes such names without quotes.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    _Base = yaml.SafeLoader
else:
    _Base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_PLAIN: Final = (
    ("null", r"~|null|Null|NULL|", ("", *"~nN")),
    ("bool", r"yes|Yes|YES|true|True|TRUE|on|On|ON|no|No|NO|false|False|FALSE|off|Off|OFF", "yYtToOnNfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*|0o?_*[0-7][0-7_]*|0b_*[01][01_]*|0x_*[0-9a-fA-F][0-9a-fA-F_]*)", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9][0-9_]*|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
    ("merge", r"<<", "<"),
)
"""Types of plain text: name, pattern, first characters. The first one that matches is used; other text is a string."""


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """Returns the types by first character, as PyYAML expects them."""
    found: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for name, pattern, first in _PLAIN:
        for character in first:
            found.setdefault(character, []).append((f"tag:yaml.org,2002:{name}", re.compile(rf"(?:{pattern})$")))
    return found


class _ManifestLoader(_Base):
    """A safe loader that gives plain text the types of kubectl."""

    yaml_implicit_resolvers: Any = _resolvers()


def load_documents(text: str | bytes) -> Iterator[Any]:
    """Yields the documents of a YAML or JSON text.

    Raises:
        yaml.YAMLError: the text is not YAML.
    """
    return yaml.load_all(text, Loader=_ManifestLoader)  # a safe loader
