"""YAML with every surprise refused: one document, string keys, no duplicates, bounded size, depth and expansion.

`load` returns the plain value and the position of each key, so that an error of the schema can name its line.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final, TypeGuard, final

import yaml

LARGEST: Final = 64 * 1024
"""Longest text in characters. Real files have a few kilobytes; a ConfigMap holds at most 1 MiB."""

DEEPEST: Final = 32
"""Deepest nesting of mappings and sequences."""

MOST_NODES: Final = 20_000
"""Most values after aliases are expanded. A few anchors in a row can stand for billions of values."""

Path = tuple[str | int, ...]

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's parser where PyYAML was built with it: ten times as fast, the same results."""

_TEXT_TAG: Final = "tag:yaml.org,2002:str"
_MERGE_TAG: Final = "tag:yaml.org,2002:merge"


@final
@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a file."""

    message: str
    """What is wrong and the remedy."""

    path: str = ""
    """Dotted path of the key; empty for the whole file."""

    line: int = 0
    """Line, counted from 1; 0 when unknown."""

    column: int = 0
    """Column, counted from 1; 0 when unknown."""

    def __str__(self) -> str:
        where = f" (line {self.line}, column {self.column})" if self.line else ""
        return f"{self.path}: {self.message}{where}" if self.path else f"{self.message}{where}"


class ConfigError(ValueError):
    """The file cannot be used. Carries every problem found."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: Final = tuple(problems)
        super().__init__("; ".join(map(str, self.problems)))


@final
@dataclass(slots=True)
class Document:
    """A YAML document and where its keys are."""

    value: Any = None
    """The document as plain Python values; None when it is empty."""

    positions: dict[Path, tuple[int, int]] = field(default_factory=dict[Path, tuple[int, int]])
    """Line and column of each key and item, counted from 1."""

    def problem(self, path: Path, message: str) -> Problem:
        """A problem at `path`, with the position of the nearest key that exists."""
        known = next((path[:end] for end in range(len(path), 0, -1) if path[:end] in self.positions), ())
        line, column = self.positions.get(known, (0, 0))
        return Problem(message, ".".join(map(str, path)), line, column)


def load(text: str) -> Document:
    """Read one YAML document.

    Raises:
        ConfigError: not YAML, or YAML with something that no configuration file needs.
    """
    if len(text) > LARGEST:
        raise ConfigError([Problem(f"is too long: {len(text)} characters, at most {LARGEST} are read")])
    try:
        _bounded(text)
        loader = _LOADER(text)
        try:
            node = loader.get_single_node()
            document = Document()
            if node is None:
                return document
            _Walk(document).visit(node, ())
            document.value = loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ConfigError([_syntax(error)]) from error
    except (ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError([Problem(f"not YAML: {error}")]) from error  # for example the date 2024-13-45
    return document


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """`, did you mean X?` when a known name is close; empty otherwise. Case and `-` against `_` do not count."""
    plain = {each.lower().replace("-", "_"): each for each in known}
    close = get_close_matches(name.lower().replace("-", "_"), plain, n=1, cutoff=cutoff)
    return f", did you mean {plain[close[0]]}?" if close else ""


def _bounded(text: str) -> None:
    """Refuse deep nesting before anything recursive runs.

    Raises:
        ConfigError: nested deeper than `DEEPEST`.
    """
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEEPEST:
                mark: Any = event.start_mark
                message = f"is nested deeper than {DEEPEST} levels"
                raise ConfigError([Problem(message, "", mark.line + 1, mark.column + 1)])
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _syntax(error: yaml.YAMLError) -> Problem:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    context = getattr(error, "context", None)
    words = f"not YAML: {what}{f' ({context})' if context else ''}"
    return Problem(words, "", mark.line + 1, mark.column + 1) if mark else Problem(words)


@final
class _Walk:
    """Visits the node tree as a reader of the values would: an alias counts again each time."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._visited = 0
        self._open: set[int] = set()

    def visit(self, node: Any, path: Path) -> None:
        """Check one node and everything below it.

        Raises:
            ConfigError: a duplicate or non-string key, a loop, or too many values.
        """
        self._visited += 1
        if self._visited > MOST_NODES:
            self._refuse(node, path, f"has more than {MOST_NODES} values, aliases included")
        if id(node) in self._open:
            self._refuse(node, path, "refers to itself")
        self._open.add(id(node))
        if isinstance(node, yaml.MappingNode):
            self._mapping(node, path)
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self._note((*path, index), item)
                self.visit(item, (*path, index))
        self._open.discard(id(node))

    def _mapping(self, node: Any, path: Path) -> None:
        seen: dict[str, int] = {}
        for key, value in node.value:
            if key.tag == _MERGE_TAG:
                self.visit(value, path)
                continue
            if not isinstance(key, yaml.ScalarNode) or key.tag != _TEXT_TAG:
                shown = repr(key.value) if isinstance(key, yaml.ScalarNode) else "a collection"
                self._refuse(key, path, f"the key {shown} is not text: write it in quotes if it is meant")
            line = key.start_mark.line + 1
            if key.value in seen:
                self._refuse(key, (*path, key.value), f"is there twice, first in line {seen[key.value]}: remove one")
            seen[key.value] = line
            self._note((*path, key.value), key)
            self.visit(value, (*path, key.value))

    def _note(self, path: Path, node: Any) -> None:
        self._document.positions.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))

    def _refuse(self, node: Any, path: Path, message: str) -> None:
        where = node.start_mark
        raise ConfigError([Problem(message, ".".join(map(str, path)), where.line + 1, where.column + 1)])


def without_nulls(value: Any) -> Any:
    """Upstream's templates write null for "not set"; here that means the default, not the word None."""
    if is_mapping(value):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return value


def is_mapping(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether a value of a document is a mapping; `load` made sure that its keys are text."""
    return isinstance(value, dict)
