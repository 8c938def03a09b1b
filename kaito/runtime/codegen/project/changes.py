"""Writes the files of a new project, and the files that differ after an addition unless a user has edited one."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kaito.runtime.codegen.project.contents import RECORD, Project, ProjectProblem, digest, record_of
from kaito.runtime.codegen.project.render import render, rewritable


@dataclass(frozen=True)
class Changes:
    """The files that a change writes."""

    folder: Path
    files: Mapping[str, str]
    """Contents by path."""
    project: Project
    """The project after the change."""

    def write(self) -> Sequence[str]:
        """Writes the files, and the record at the end; returns the paths of those that differ."""
        digests = dict(self.project.digests)
        owned = rewritable(self.project)
        digests |= {path: digest(text) for path, text in self.files.items() if path in owned}
        record = record_of(replace(self.project, digests=digests))
        written: list[str] = []
        for path, text in [*self.files.items(), (RECORD, record)]:
            target = self.folder / path
            if _content(target) != text:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text, encoding="utf-8")
                written.append(path)
        return written


def new_project(folder: Path, project: Project) -> Changes:
    """Returns the files of a new project.

    Raises:
        ProjectProblem: the folder exists and is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ProjectProblem(f"{folder} exists: choose another name or another --directory, or delete it")
    return Changes(folder, render(project), project)


def addition(folder: Path, before: Project, after: Project) -> Changes:
    """Returns the files that differ between two states of a project.

    Raises:
        ProjectProblem: a file that would be overwritten was edited, or was not written by this program. The message
            contains the lines to add by hand.
    """
    old, new = render(before), render(after)
    files = {path: text for path, text in new.items() if old.get(path) != text}
    problems: list[str] = []
    for path, text in files.items():
        current = _content(folder / path)
        if current is None or current in {text, old.get(path)} or digest(current) == before.digests.get(path):
            continue
        problems.append(_edited(path, old.get(path), text))
    if problems:
        raise ProjectProblem("\n".join([*problems, "nothing was written"]))
    return Changes(folder, files, after)


def _edited(path: str, old: str | None, new: str) -> str:
    if old is None:
        return f"{path} exists and has other content: rename it, and call the command again"
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), path, path, lineterm="")
    return "\n".join([f"{path} was edited: make this change by hand, and call the command again", *lines])


def _content(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
