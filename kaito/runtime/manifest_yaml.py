"""Loads the YAML of manifests with JSON's types only, as kubectl does.

PyYAML follows YAML 1.1: it reads `2024-01-01` as a date and `on` as a boolean, and fails at a plain `=`, which enums of
some CustomResourceDefinitions contain. kubectl reads all of them as text.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    _Base = yaml.SafeLoader
else:
    _Base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_BOOL: Final = "tag:yaml.org,2002:bool"
_TRUE_OR_FALSE: Final = re.compile(r"(?:true|True|TRUE|false|False|FALSE)$")
_FIRST_OF_BOOL: Final = frozenset("tTfF")
_LEFT_OUT: Final = frozenset({_BOOL, "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value"})


class _ManifestLoader(_Base):
    """A safe loader without dates, and with `true` and `false` as the only booleans."""

    yaml_implicit_resolvers: Any = {
        letter: [
            *((tag, pattern) for tag, pattern in resolvers if tag not in _LEFT_OUT),
            *([(_BOOL, _TRUE_OR_FALSE)] if letter in _FIRST_OF_BOOL else []),
        ]
        for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def load_documents(text: str | bytes) -> Iterator[Any]:
    """Yields the documents of a YAML or JSON text.

    Raises:
        yaml.YAMLError: the text is not YAML.
    """
    return yaml.load_all(text, Loader=_ManifestLoader)  # a safe loader
