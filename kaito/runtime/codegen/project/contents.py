"""What a project consists of, and `.kaito-runtime.json`, the file that records it.

The file also has the digests of the files that `kaito-runtime add` may rewrite, as they were written: a file with
another digest was edited.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kaito.runtime.codegen.project.names import (
    NameProblem,
    check_name,
    check_plural,
    check_version,
    module_of,
    package_of,
    plural_of,
    split_kind,
)

RECORD: Final = ".kaito-runtime.json"


class ProjectProblem(Exception):
    """A command cannot be executed; the message names the file or the argument, and the remedy."""


class Kind(BaseModel):
    """A kind of a project."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    group: str
    version: str
    """The version that is stored."""
    kind: str
    plural: str
    webhook: bool = False
    spokes: tuple[str, ...] = ()
    """Versions that are converted to and from the stored one."""

    @property
    def module(self) -> str:
        """Name of the package of the kind."""
        return module_of(self.kind)


@dataclass(frozen=True)
class Project:
    """A project, without the files in it."""

    name: str
    kinds: tuple[Kind, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict[str, str])
    """Digests of the files that were written and may be rewritten, by path."""

    @property
    def package(self) -> str:
        """Name of the Python package."""
        return package_of(self.name)

    def find(self, kind: str) -> Kind:
        """Returns a kind by its name.

        Raises:
            ProjectProblem: the project does not have it.
        """
        for each in self.kinds:
            if each.kind == kind:
                return each
        present = ", ".join(each.kind for each in self.kinds)
        raise ProjectProblem(f"kind {kind!r} is not in this project: choose from {present}")

    def with_kind(self, text: str, plural: str = "") -> "Project":
        """Returns the project with one more kind, or the same project if it has the kind.

        Raises:
            NameProblem: the name cannot be used.
            ProjectProblem: the project has a kind of this name in another group or version.
        """
        group, version, kind = split_kind(text)
        if plural:
            check_plural(plural)
        added = Kind(group=group, version=version, kind=kind, plural=plural or plural_of(kind))
        for each in self.kinds:
            if (each.group, each.version, each.kind) == (group, version, kind):
                if plural not in {"", each.plural}:
                    raise ProjectProblem(f"kind {text} is in this project with the plural {each.plural}")
                return self
            if each.module == added.module:
                raise ProjectProblem(
                    f"kind {text}: {each.group}/{each.version}/{each.kind} has the folder {each.module} already; "
                    "for another version of a kind use `kaito-runtime add conversion`"
                )
        return replace(self, kinds=(*self.kinds, added))

    def with_webhook(self, kind: str) -> "Project":
        """Returns the project with a webhook of a kind."""
        return self._replacing(self.find(kind).model_copy(update={"webhook": True}))

    def with_spoke(self, kind: str, version: str) -> "Project":
        """Returns the project with another version of a kind.

        Raises:
            NameProblem: it is not a version.
            ProjectProblem: it is the version that is stored.
        """
        check_version(version)
        found = self.find(kind)
        if version == found.version:
            raise ProjectProblem(f"version {version} of {kind} is the one that is stored: name another with --version")
        spokes = found.spokes if version in found.spokes else (*found.spokes, version)
        return self._replacing(found.model_copy(update={"spokes": spokes}))

    def _replacing(self, changed: Kind) -> "Project":
        return replace(self, kinds=tuple(changed if each.kind == changed.kind else each for each in self.kinds))


class _Record(BaseModel):
    """The content of the file."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str
    kinds: tuple[Kind, ...] = Field(min_length=1)
    digests: dict[str, str]


def read_project(folder: Path) -> Project:
    """Reads the record of a project.

    Raises:
        ProjectProblem: the folder has none, or it is malformed.
    """
    path = folder / RECORD
    try:
        record = _Record.model_validate_json(path.read_bytes())
        check_name(record.name)
        for each in record.kinds:
            split_kind(f"{each.group}/{each.version}/{each.kind}")
            check_plural(each.plural)
            for spoke in each.spokes:
                check_version(spoke)
    except FileNotFoundError:
        raise ProjectProblem(
            f"{path} does not exist: call the command in a folder that `kaito-runtime init` has made"
        ) from None
    except (ValidationError, NameProblem) as error:
        raise ProjectProblem(f"{path} is malformed, restore it from version control: {error}") from error
    return Project(record.name, record.kinds, record.digests)


def record_of(project: Project) -> str:
    """Returns the content of the file."""
    kinds = [each.model_dump(mode="json") for each in project.kinds]
    document = {"name": project.name, "kinds": kinds, "digests": dict(sorted(project.digests.items()))}
    return json.dumps(document, indent=2) + "\n"


def digest(text: str) -> str:
    """Returns the digest of a file."""
    return sha256(text.encode()).hexdigest()
