"""`Webhook`: what the API server may ask about a kind: fill in defaults, refuse what is wrong, convert versions.

    def check(admission: Admission[Memcached]) -> None:
        if admission.object is not None and admission.object.spec.size > 100:
            admission.deny("spec.size", "at most 100 replicas are supported; split the cache instead")

    Manager(settings, webhooks=[Webhook(Memcached, default=fill_in, validate=check)])

Functions are pure or at least free of side effects (the request may be a dry run), may be async, and are given one
second less than the API server waits.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar, final

from kaito.runtime.errors import ConfigurationError
from kaito.runtime.meta import Resource

R = TypeVar("R", bound=Resource)

Operation = Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]

WARNING_LENGTH = 256
"""Longest warning clients show well (Kubernetes documentation, "Dynamic admission control")."""

_PATH = re.compile(r"((/[a-zA-Z0-9-_.]+)+|/)")


@dataclass(frozen=True, slots=True)
class Problem:
    """One reason for a refusal."""

    field: str
    """Path of the field as the user wrote it; empty for the whole object."""
    message: str
    """What is wrong, and the remedy."""

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


@dataclass(slots=True)
class Admission(Generic[R]):
    """One question of the API server."""

    operation: Operation
    object: R | None
    """The new state; None for a deletion."""
    old: R | None = None
    """The state before an update or deletion."""
    user: str = ""
    groups: tuple[str, ...] = ()
    dry_run: bool = False
    """Nothing will be stored: leave no traces anywhere."""
    subresource: str = ""
    problems: list[Problem] = field(default_factory=list[Problem])
    warnings: list[str] = field(default_factory=list[str])

    def deny(self, field: str, message: str) -> None:
        """Refuse the request; several reasons are told together. With a field the answer is 422 Invalid, else 403."""
        self.problems.append(Problem(field, message))

    def warn(self, text: str) -> None:
        """Tell the user something without refusing; longer texts are cut."""
        self.warnings.append(text if len(text) <= WARNING_LENGTH else text[: WARNING_LENGTH - 1] + "…")


Default = Callable[[R], R | Awaitable[R]]
"""Returns the object with its defaults filled in; given back unchanged, nothing is patched."""

Validate = Callable[[Admission[R]], Awaitable[None] | None]
"""Calls `admission.deny` and `admission.warn`, or raises an `ApiError`, which is passed on as it is."""


@final
class Webhook(Generic[R]):
    """Admission of one version of one kind.

    Args:
        kind: the kind, in the version the functions understand.
        default: one function or several; each sees what the one before it made.
        validate: judges creations, updates and deletions.
        mutate_path: path of the defaulting webhook; `/mutate-<group>-<version>-<kind>` by default.
        validate_path: path of the validating webhook; `/validate-<group>-<version>-<kind>` by default.

    Raises:
        ConfigurationError: nothing to do, or a path the API server refuses.
    """

    def __init__(
        self,
        kind: type[R],
        *,
        default: Default[R] | Sequence[Default[R]] = (),
        validate: Validate[R] | None = None,
        mutate_path: str = "",
        validate_path: str = "",
    ) -> None:
        self.kind = kind
        self.defaults: Sequence[Default[R]] = (default,) if callable(default) else tuple(default)
        self.validate = validate
        if not self.defaults and validate is None:
            message = f"Webhook({kind.kind}) has nothing to do: give default= or validate="
            raise ConfigurationError(message)
        self.mutate_path: str = checked_path(mutate_path or _path("mutate", kind))
        self.validate_path: str = checked_path(validate_path or _path("validate", kind))

    def __repr__(self) -> str:
        return f"Webhook({self.kind.gvk()})"


def _path(what: str, kind: type[Resource]) -> str:
    gvk = kind.gvk()
    return f"/{what}-{gvk.group.replace('.', '-')}-{gvk.version}-{gvk.kind.lower()}"


def checked_path(path: str) -> str:
    """The path, if the API server accepts it.

    Raises:
        ConfigurationError: it does not.
    """
    if not _PATH.fullmatch(path):
        message = f"webhook path {path!r}: only letters, digits, '-', '_' and '.' between slashes"
        raise ConfigurationError(message)
    return path


AnyWebhook = Webhook[Any]
