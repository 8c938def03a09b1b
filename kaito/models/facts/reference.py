"""References of models outside the catalog: `organization/model` or `organization/model@revision`."""

import re
from dataclasses import dataclass
from typing import Final, Self, final

_NAME: Final = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_ID: Final = re.compile(rf"{_NAME}/{_NAME}")
_REVISION: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,126}[A-Za-z0-9_])?")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


class InvalidReference(ValueError):
    """A name is not a reference of a model; the message is a clause that follows the name."""


@final
@dataclass(frozen=True, slots=True)
class ModelReference:
    """A model of Hugging Face."""

    model: str
    """`organization/model`, in the spelling of the user."""
    revision: str = ""
    """Branch, tag or commit; empty for the default branch."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses a reference.

        Raises:
            InvalidReference: it has another form; the message contains the remedy.
        """
        name, separator, revision = text.strip().partition("@")
        if not _ID.fullmatch(name) or ".." in name or "--" in name:
            raise InvalidReference("is not of the form organization/model or organization/model@revision")
        if separator and (not _REVISION.fullmatch(revision) or ".." in revision or "//" in revision):
            raise InvalidReference("has a revision that is not the name of a branch, a tag or a commit")
        return cls(name, revision)

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit, which never changes."""
        return _COMMIT.fullmatch(self.revision) is not None

    @property
    def short_name(self) -> str:
        """The last part in lower case, as the names of the catalog."""
        return self.model.rpartition("/")[2].lower()

    def __str__(self) -> str:
        return f"{self.model}@{self.revision}" if self.revision else self.model


def is_reference(name: str) -> bool:
    """Whether the name has the form of a Hugging Face ID; other names are those of the catalog."""
    return "/" in name
