"""`Webhook`: defaulting and validation of a kind at admission.

    def check(admission: Admission[Memcached]) -> None:
        if admission.object is not None and admission.object.spec.size > 100:
            admission.deny("spec.size", "at most 100 replicas are supported; split the cache instead")

    Manager(settings, webhooks=[Webhook(Memcached, default=fill_in, validate=check)])

`mutate=` is for defaults that depend on the stored object: it also gets the operation and the old object.

`finalizer=` adds the finalizer of a controller to new objects, which saves the controller one request for each of them.

The functions must not have side effects, because the request may be a dry run. They may be async. Their deadline is one
second before the API server's timeout.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar, final

from kaito.runtime.errors import ConfigurationError
from kaito.runtime.finalizer import is_finalizer_name
from kaito.runtime.lifespan import State, state_of
from kaito.runtime.meta import Resource

R = TypeVar("R", bound=Resource)
T = TypeVar("T")

Operation = Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]

WARNING_LENGTH = 256
"""Recommended maximum of a warning (Kubernetes documentation, "Dynamic admission control")."""

_PATH = re.compile(r"((/[a-zA-Z0-9-_.]+)+|/)")


@dataclass(frozen=True, slots=True)
class Problem:
    """One reason to deny a request."""

    field: str
    """Path of the field in the manifest; empty for the whole object."""
    message: str
    """The problem and the remedy."""

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


@dataclass(slots=True)
class Admission(Generic[R]):
    """One admission request."""

    operation: Operation
    object: R | None
    """The new state; None for a deletion."""
    old: R | None = None
    """The state before an update or deletion."""
    user: str = ""
    groups: tuple[str, ...] = ()
    dry_run: bool = False
    """Whether the object is not stored: there must be no side effects."""
    subresource: str = ""
    problems: list[Problem] = field(default_factory=list[Problem])
    warnings: list[str] = field(default_factory=list[str])
    lifespan_state: State = field(default=None, repr=False, compare=False)
    """What the manager's lifespan yielded, for `lifespan`; None without one."""

    def lifespan(self, kind: type[T]) -> T:
        """Returns the state of the manager's lifespan, which has to be of this type.

        Raises:
            ConfigurationError: the manager has no lifespan, or it yields another type.
        """
        return state_of(self.lifespan_state, kind)

    def deny(self, field: str, message: str) -> None:
        """Denies the request. The response contains all reasons; it is 422 Invalid if one names a field, else 403."""
        self.problems.append(Problem(field, message))

    def warn(self, text: str) -> None:
        """Adds a warning, which kubectl prints; a text that is too long is cut."""
        self.warnings.append(text if len(text) <= WARNING_LENGTH else text[: WARNING_LENGTH - 1] + "…")


Default = Callable[[R], R | Awaitable[R]]
"""Returns the object with defaults; the same object if there is nothing to set."""

Mutate = Callable[[Admission[R]], R | Awaitable[R]]
"""Returns the object with changes that depend on the operation or on the stored object: `admission.object` and
`admission.old` are set as in the request. Called after the defaults; not for deletions."""

Validate = Callable[[Admission[R]], Awaitable[None] | None]
"""Calls `admission.deny` and `admission.warn`, or raises an `ApiError`, which becomes the response."""


@final
class Webhook(Generic[R]):
    """Admission of one version of one kind.

    Args:
        kind: the kind, in the version of the functions.
        default: one function or several; each gets the result of the one before it.
        mutate: gets the result of the defaults as `admission.object`, and the stored object of an update. An object
            that does not fit the model is left unchanged.
        validate: validates creations, updates and deletions.
        finalizer: added to every created object, so that the controller with this finalizer sends no request to add it.
            The controller still adds it to objects that were created while the webhook was not called.
        mutate_path: path of the defaulting webhook; `/mutate-<group>-<version>-<kind>` by default.
        validate_path: path of the validating webhook; `/validate-<group>-<version>-<kind>` by default.

    Raises:
        ConfigurationError: none of default, mutate, validate and finalizer, or a path or a finalizer that the API
            server rejects.
    """

    def __init__(
        self,
        kind: type[R],
        *,
        default: Default[R] | Sequence[Default[R]] = (),
        mutate: Mutate[R] | None = None,
        validate: Validate[R] | None = None,
        finalizer: str = "",
        mutate_path: str = "",
        validate_path: str = "",
    ) -> None:
        self.kind = kind
        self.defaults: Sequence[Default[R]] = (default,) if callable(default) else tuple(default)
        self.mutate = mutate
        self.validate = validate
        if finalizer and not is_finalizer_name(finalizer):
            message = f"Webhook({kind.kind}): finalizer {finalizer!r} is not of the form domain/name"
            raise ConfigurationError(message)
        self.finalizer = finalizer
        if not self.mutates and validate is None:
            message = f"Webhook({kind.kind}) has nothing to do: give default=, mutate=, validate= or finalizer="
            raise ConfigurationError(message)
        self.mutate_path: str = checked_path(mutate_path or _path("mutate", kind))
        self.validate_path: str = checked_path(validate_path or _path("validate", kind))

    @property
    def mutates(self) -> bool:
        """Whether the webhook has a mutating path."""
        return bool(self.defaults or self.mutate or self.finalizer)

    def __repr__(self) -> str:
        return f"Webhook({self.kind.gvk()})"


def _path(action: str, kind: type[Resource]) -> str:
    gvk = kind.gvk()
    return f"/{action}-{gvk.group.replace('.', '-')}-{gvk.version}-{gvk.kind.lower()}"


def checked_path(path: str) -> str:
    """Validates a path of a webhook and returns it.

    Raises:
        ConfigurationError: the API server would reject the path.
    """
    if not _PATH.fullmatch(path):
        message = f"webhook path {path!r}: only letters, digits, '-', '_' and '.' between slashes"
        raise ConfigurationError(message)
    return path


AnyWebhook = Webhook[Any]
