"""Checks of the arguments of clients: field managers and namespaces."""

from kaito.runtime.client.write_context import FIELD_MANAGER_LENGTH
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.meta import Resource


def check_field_manager(name: str) -> None:
    """Checks a field manager's name as the API server does.

    Raises:
        ConfigurationError: It is empty, too long, or contains unprintable characters.
    """
    if not name:
        message = "a field manager is required: the name under which the server records changes"
        raise ConfigurationError(message)
    if len(name) > FIELD_MANAGER_LENGTH or not name.isprintable():
        raise ConfigurationError(f"field manager {name!r}: at most {FIELD_MANAGER_LENGTH} printable characters")


def allowed_namespace(kind: type[Resource], namespace: str, home: str) -> str:
    """Returns `home`, the namespace that a client is restricted to, if the call allows it.

    Raises:
        ConfigurationError: The call has another namespace.
    """
    if namespace not in {"", home}:
        raise ConfigurationError(f"{kind.kind} in namespace {namespace!r}: this client is restricted to {home!r}")
    return home
