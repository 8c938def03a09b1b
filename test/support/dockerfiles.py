"""Dockerfiles and the files that a build of them receives, without a builder."""

import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Instruction:
    """One instruction with its continuation lines joined; the flags before its arguments are separate."""

    name: str
    flags: tuple[str, ...]
    rest: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.rest)


@dataclass(frozen=True)
class Stage:
    """A FROM instruction and the instructions up to the next one."""

    base: str
    instructions: tuple[Instruction, ...]

    def all(self, name: str) -> list[Instruction]:
        return [each for each in self.instructions if each.name == name]


@dataclass(frozen=True)
class Dockerfile:
    """The global arguments and the stages of a file."""

    arguments: dict[str, str]
    stages: tuple[Stage, ...]


def parse(text: str) -> Dockerfile:
    """Parses the subset of the format that this repository uses: no heredocs, no comments inside of instructions."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for line in re.sub(r"\\\n", " ", lines).splitlines():
        name, _, rest = line.strip().partition(" ")
        flags: list[str] = []
        while match := re.match(r"\s*(--\S+)\s+", rest):
            flags.append(match[1])
            rest = rest[match.end() :]
        rest = rest.strip()
        if name == "FROM":
            stages.append(Stage(rest, ()))
        elif name and not stages:
            key, _, value = rest.partition("=")
            arguments[key] = value
        elif name:
            last = stages[-1]
            stages[-1] = Stage(last.base, (*last.instructions, Instruction(name, tuple(flags), rest)))
    return Dockerfile(arguments, tuple(stages))


def context_files(dockerfile: Path) -> list[str]:
    """The files of the checkout that a build of `dockerfile` receives: what its ignore file leaves."""
    own = dockerfile.with_name(f"{dockerfile.name}.dockerignore")
    lines = [line.strip() for line in (own if own.exists() else ROOT / ".dockerignore").read_text().splitlines()]
    patterns = [line for line in lines if line and not line.startswith("#")]
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.splitlines()  # fmt: skip
    found: list[str] = []
    for name in listed:
        ignored = False
        for pattern in patterns:
            path = pattern.removeprefix("!")
            if path == "*" or name == path or name.startswith(f"{path}/"):  # the last pattern that matches decides
                ignored = not pattern.startswith("!")
        if not ignored and (ROOT / name).is_file():
            found.append(name)
    return found
