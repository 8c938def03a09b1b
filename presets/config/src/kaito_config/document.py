"""Loads YAML strictly: one document, text keys, no duplicate keys, limited size, depth and alias expansion.

`load` returns the value and the position of each key, so that a validation error can name the line.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final, TypeGuard, final

import yaml

MAX_CHARACTERS: Final = 64 * 1024
"""Most characters of a text. Real files have a few kilobytes; a ConfigMap contains at most 1 MiB."""

MAX_DEPTH: Final = 32
"""Deepest nesting of mappings and sequences."""

MAX_NODES: Final = 20_000
"""Most values after the expansion of aliases. A few nested anchors can expand to billions of values."""

Path = tuple[str | int, ...]

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's parser if PyYAML was built with it, which is ten times as fast; the results are the same."""

_TEXT_TAG: Final = "tag:yaml.org,2002:str"
_MERGE_TAG: Final = "tag:yaml.org,2002:merge"


@final
@dataclass(frozen=True, slots=True)
class Problem:
    """One problem in a file."""

    message: str
    """The problem and its remedy."""

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
    """The file cannot be used; `problems` lists all problems that were found."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: Final = tuple(problems)
        super().__init__("; ".join(map(str, self.problems)))


@final
@dataclass(slots=True)
class Document:
    """A YAML document with the positions of its keys."""

    value: Any = None
    """The document as plain Python values; None when it is empty."""

    positions: dict[Path, tuple[int, int]] = field(default_factory=dict[Path, tuple[int, int]])
    """Line and column of each key and item, counted from 1."""

    def problem(self, path: Path, message: str) -> Problem:
        """Builds a problem at `path`, with the position of the nearest existing key."""
        known = next((path[:end] for end in range(len(path), 0, -1) if path[:end] in self.positions), ())
        line, column = self.positions.get(known, (0, 0))
        return Problem(message, ".".join(map(str, path)), line, column)


def load(text: str) -> Document:
    """Loads one YAML document.

    Raises:
        ConfigError: the text is not YAML, or violates one of the restrictions.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigError([Problem(f"is too long: {len(text)} characters, at most {MAX_CHARACTERS} are read")])
    try:
        _check_depth(text)
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
    """Returns `, did you mean X?` if a known name is similar, else an empty text.

    The comparison ignores case and does not distinguish `-` from `_`.
    """
    plain = {each.lower().replace("-", "_"): each for each in known}
    close = get_close_matches(name.lower().replace("-", "_"), plain, n=1, cutoff=cutoff)
    return f", did you mean {plain[close[0]]}?" if close else ""


def _check_depth(text: str) -> None:
    """Rejects deep nesting before the parser's recursive functions run.

    Raises:
        ConfigError: the document is nested deeper than `MAX_DEPTH`.
    """
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                mark: Any = event.start_mark
                message = f"is nested deeper than {MAX_DEPTH} levels"
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
    """Visits the nodes of a document with aliases expanded."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._visited = 0
        self._open: set[int] = set()

    def visit(self, node: Any, path: Path) -> None:
        """Checks a node and everything below it.

        Raises:
            ConfigError: a key is duplicate or not a text, an alias contains itself, or there are too many values.
        """
        self._visited += 1
        if self._visited > MAX_NODES:
            self._refuse(node, path, f"has more than {MAX_NODES} values, aliases included")
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
                self._refuse(key, path, f"the key {shown} is not text: write it in quotes")
            line = key.start_mark.line + 1
            if key.value in seen:
                self._refuse(
                    key, (*path, key.value), f"is a duplicate of the key in line {seen[key.value]}: remove one"
                )
            seen[key.value] = line
            self._note((*path, key.value), key)
            self.visit(value, (*path, key.value))

    def _note(self, path: Path, node: Any) -> None:
        self._document.positions.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))

    def _refuse(self, node: Any, path: Path, message: str) -> None:
        where = node.start_mark
        raise ConfigError([Problem(message, ".".join(map(str, path)), where.line + 1, where.column + 1)])


def without_nulls(value: Any) -> Any:
    """Removes null values from mappings: upstream's templates contain null for an unset value, which has a default."""
    if is_mapping(value):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return value


def is_mapping(value: object) -> TypeGuard[dict[str, Any]]:
    """Returns whether a value of a loaded document is a mapping; `load` has checked that its keys are texts."""
    return isinstance(value, dict)
