"""Report phrases that the style guide rules out, with what to write instead.

Reads docstrings, comments and string literals of Python files, Markdown outside code spans, and the lines of YAML, TOML
and build files. The phrases and the files that may quote them are in `prose.toml` beside this file.

python hack/check/prose.py [FILE ...]    the given files, or every file of the repository
"""

import argparse
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RULES = Path(__file__).with_name("prose.toml")
SUFFIXES = {".py", ".md", ".yaml", ".yml", ".toml", ".sh", ".mk"}
NAMES = {"Makefile", "Dockerfile"}
GENERATED_OR_FOREIGN = ("requirements/", "uv.lock")


@dataclass(frozen=True)
class Text:
    """A stretch of prose and the line of the file at which it begins."""

    line: int
    text: str


@dataclass(frozen=True)
class Rules:
    """The phrases in one pattern with a group for each, what to write instead of each, and the exceptions.

    `allowed` has the words that a file may contain; `*` is any. `imperative` has verbs with which no docstring of a
    function or class begins.
    """

    pattern: re.Pattern[str]
    instead: tuple[str, ...]
    allowed: dict[str, frozenset[str]]
    imperative: frozenset[str]


def read_rules(text: str) -> Rules:
    """Returns the rules that a TOML document contains."""
    document = tomllib.loads(text)
    entries = document["phrase"]
    alternatives = "|".join(f"(?P<rule{number}>{entry['phrase']})" for number, entry in enumerate(entries))
    return Rules(
        pattern=re.compile(alternatives.replace(" ", r"\s+"), re.MULTILINE),
        instead=tuple(entry["instead"] for entry in entries),
        allowed={path: frozenset(words) for path, words in document.get("allow", {}).items()},
        imperative=frozenset(document.get("docstring", {}).get("imperative", ())),
    )


_TOKEN = re.compile(
    r"""
    (?P<comment>\#[^\n]*)
    | (?P<prefix>\b[a-zA-Z]{1,2})?
      (?: \"{3}(?P<long>(?:\\.|[^\\])*?)\"{3} | '{3}(?P<long_single>(?:\\.|[^\\])*?)'{3}
        | "(?P<double>(?:\\.|[^"\\\n])*)" | '(?P<single>(?:\\.|[^'\\\n])*)' )
    """,
    re.VERBOSE | re.DOTALL,
)
_FIRST_WORD = re.compile(r':(?:[ ]+\#[^\n]*)?\n[ ]+r?"""([A-Z][a-z]+)\b')
"""The first word of the docstring of a function or class; those of modules and settings are help of command lines."""

_EXPRESSION = re.compile(r"(?<!\{)\{[^{}\n]*\}")


def python_prose(source: str) -> list[Text]:
    """Returns docstrings, other string literals and comments.

    Comments on consecutive lines are one text, and so are literals with nothing between them: a phrase may go over the
    end of a line. The expressions inside an f-string are left out.
    """
    found: list[Text] = []
    previous, end, line, counted = "", 0, 1, 0
    for token in _TOKEN.finditer(source):
        kind = "comment" if token["comment"] is not None else "string"
        if kind == "comment":
            text = token["comment"].lstrip("#")
        else:
            text = next(token[name] for name in ("long", "long_single", "double", "single") if token[name] is not None)
            if token["prefix"] and "f" in token["prefix"].lower():
                text = _EXPRESSION.sub("\N{HORIZONTAL ELLIPSIS}", text)
        between = source[end : token.start()]
        if found and kind == previous and not between.strip() and between.count("\n") <= 1:
            found[-1] = Text(found[-1].line, found[-1].text + between + text)
        else:
            line += source.count("\n", counted, token.start())
            counted = token.start()
            found.append(Text(line, text))
        previous, end = kind, token.end()
    return found


def markdown_prose(source: str) -> list[Text]:
    """Returns the text with code spans blanked; code blocks are kept, their comments are prose too."""
    return [Text(1, re.sub(r"(?<!`)`[^`\n]+`(?!`)", "`code`", source))]


def prose(path: str, source: str) -> list[Text]:
    """Returns what a person reads in a file."""
    if path.endswith(".py"):
        return python_prose(source)
    if path.endswith(".md"):
        return markdown_prose(source)
    return [Text(1, re.sub(r"^[ \t]*#+", "", source, flags=re.MULTILINE))]


def report(path: str, source: str, rules: Rules) -> list[str]:
    """Returns one line for each phrase found in a file."""
    allowed = rules.allowed.get(path, frozenset())
    if "*" in allowed:
        return []
    found: list[tuple[int, str]] = []
    for part in prose(path, source):
        for match in rules.pattern.finditer(part.text.lower()):
            words = " ".join(match.group().split())
            if words not in allowed:
                line = part.line + part.text.count("\n", 0, match.start())
                rule = next(name for name, text in match.groupdict().items() if text is not None)
                instead = rules.instead[int(rule.removeprefix("rule"))]
                found.append((line, f"{path}:{line}: '{words}': write {instead}"))
    if path.endswith(".py"):
        for match in _FIRST_WORD.finditer(source):
            if match[1] in rules.imperative:
                line = source.count("\n", 0, match.start(1)) + 1
                found.append((line, f"{path}:{line}: '{match[1]}': write the third person, as in 'Returns the node'"))
    return [text for _, text in sorted(found)]


def repository_files() -> list[str]:
    """Returns the files that git tracks or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


def is_prose_file(name: str) -> bool:
    """Whether a person wrote the file in a format that this check reads."""
    path = Path(name)
    known = path.suffix in SUFFIXES or path.name.split(".")[0] in NAMES
    return known and not name.startswith(GENERATED_OR_FOREIGN) and (ROOT / path).is_file()


def main(argv: Sequence[str]) -> int:
    """Checks the files, or the whole repository if none is given; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="files to check (default: the whole repository)")
    parser.add_argument("--rules", type=Path, default=RULES, help="phrases in TOML (default: %(default)s)")
    arguments = parser.parse_args(argv)
    rules = read_rules(arguments.rules.read_text(encoding="utf-8"))
    files = [name for name in (arguments.files or repository_files()) if is_prose_file(name)]
    found = [line for name in files for line in report(name, (ROOT / name).read_text(encoding="utf-8"), rules)]
    print("\n".join(found) if found else f"prose: {len(files)} files without a phrase to avoid")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
