"""Fenced code blocks of Markdown pages: what the tests of the documentation execute.

The first word after the fence is the language, `title="path"` names the file a block belongs to, any further word is a
flag (```` ```python kopf ```` is another framework's code: it must parse and is not run).
"""

import re
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,})(?P<info>[^`\n]*)$")
_TITLE = re.compile(r'title="([^"]*)"')


@dataclass(frozen=True)
class CodeBlock:
    """One block."""

    page: Path
    line: int
    """Of the first line of code."""
    language: str
    title: str
    flags: tuple[str, ...]
    code: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def code_blocks(page: Path) -> list[CodeBlock]:
    """The blocks of a page in order.

    Raises:
        ValueError: a fence is never closed.
    """
    blocks: list[CodeBlock] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        opening = _FENCE.match(lines[number])
        number += 1
        if opening is None:
            continue
        start, indent = number, len(opening["indent"])
        while number < len(lines) and lines[number].strip() != opening["fence"]:
            number += 1
        if number == len(lines):
            message = f"{page}:{start}: the code block is never closed"
            raise ValueError(message)
        code = "".join(f"{line[indent:]}\n" for line in lines[start:number])
        number += 1
        title = _TITLE.search(opening["info"])
        language, *flags = _TITLE.sub("", opening["info"]).split() or [""]
        blocks.append(CodeBlock(page, start + 1, language, title[1] if title else "", tuple(flags), code))
    return blocks
