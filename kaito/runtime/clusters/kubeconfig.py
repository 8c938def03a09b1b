"""Reads a kubeconfig that others have written, from a Secret.

The author of a kubeconfig decides where a client connects, and can make kubectl run programs and read files. Only what
stays within the document is accepted here: addresses, certificates and credentials in the text itself. Everything else
is refused by name: `exec` and `auth-provider` (programs), `tokenFile`, `client-certificate`, `client-key` and
`certificate-authority` (files of this process), and every field that is not known. An error never contains a value of
the document. `kaito.runtime.client.kubeconfig` reads the kubeconfig files of the program's own user.
"""

import base64
import binascii
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, cast, final
from urllib.parse import urlsplit

import yaml
from yaml.events import AliasEvent

from kaito.runtime.client.config import ClusterConfig, Credentials, NoCredentials, TlsConfig
from kaito.runtime.client.proxy import find_proxy
from kaito.runtime.client.server_address import ServerAddress
from kaito.runtime.client.tls import client_context
from kaito.runtime.errors import ConfigurationError

SIZE_LIMIT: Final = 128 * 1024
"""Maximum size in bytes. Kubeconfigs of one cluster have 2 to 10 KiB; parsing blocks the event loop meanwhile."""

NESTING_LIMIT: Final = 20

_CLUSTER_FIELDS: Final = frozenset(
    (
        "server",
        "certificate-authority-data",
        "insecure-skip-tls-verify",
        "tls-server-name",
        "proxy-url",
        "disable-compression",
        "extensions",
    )
)
_USER_FIELDS: Final = frozenset(
    ("token", "client-certificate-data", "client-key-data", "username", "password", "as", "extensions")
)
_ANONYMOUS: Final = NoCredentials()
"""One object, so that equal kubeconfigs have equal configurations."""

_REASONS: Final = {
    "exec": "it would run a program",
    "auth-provider": "it would run a program",
    "tokenFile": "it names a file of this process: put the token into the field token",
    "client-certificate": "it names a file of this process: use client-certificate-data",
    "client-key": "it names a file of this process: use client-key-data",
    "certificate-authority": "it names a file of this process: use certificate-authority-data",
    "as-uid": "impersonation with more than a user name is not supported",
    "as-groups": "impersonation with more than a user name is not supported",
    "as-user-extra": "impersonation with more than a user name is not supported",
}


class KubeconfigRefused(ConfigurationError):
    """A kubeconfig is invalid, or contains what a foreign kubeconfig may not contain."""


@final
@dataclass(frozen=True, slots=True)
class _FixedCredentials:
    """A value of the `Authorization` header that does not change."""

    _header: str = field(repr=False)

    async def header(self) -> str:
        """Returns the header."""
        return self._header

    async def renew(self, header: str) -> bool:  # noqa: ARG002 -- the protocol's
        """Returns False: a new kubeconfig brings new credentials."""
        return False


def parse_kubeconfig(
    text: bytes, *, context: str = "", insecure: bool = False, environment: Mapping[str, str] = os.environ
) -> ClusterConfig:
    """Returns the configuration of one context.

    Args:
        text: the document.
        context: the context; by default the current one.
        insecure: accept servers without TLS, and TLS without verification.
        environment: contains the proxy variables, which apply without `proxy-url`.

    Raises:
        KubeconfigRefused: it is not valid, or not safe. The message names the field.
    """
    document = _mapping(_load(text), "the document")
    chosen = context or _text(document, "current-context", "the document")
    if not chosen:
        _refuse("it has no current-context: set one, or name the context")
    known = _mapping(_entry(document, "contexts", "context", chosen), f"context {chosen!r}")
    cluster_name, user_name = _text(known, "cluster", "the context"), _text(known, "user", "the context")
    cluster = _mapping(_entry(document, "clusters", "cluster", cluster_name), "the cluster")
    user: Mapping[str, Any] = {}
    if user_name:
        user = _mapping(_entry(document, "users", "user", user_name), "the user")
    _check_fields(cluster, _CLUSTER_FIELDS, "cluster")
    _check_fields(user, _USER_FIELDS, "user")
    server = _server(cluster, insecure=insecure)
    proxy = _text(cluster, "proxy-url", "the cluster")
    impersonated = _text(user, "as", "the user")
    if not impersonated.isascii():
        _refuse("as of the user is not ASCII")
    try:
        ServerAddress.parse(server)
        return ClusterConfig(
            server=server,
            credentials=_credentials(user),
            tls=_tls(cluster, user, insecure=insecure),
            proxy=find_proxy(server, proxy, environment),
            impersonation=(("impersonate-user", impersonated),) if impersonated else (),
            namespace=_text(known, "namespace", "the context"),
        )
    except KubeconfigRefused:
        raise
    except ConfigurationError as error:
        if proxy:  # its URL may contain a password
            _refuse("proxy-url or server of the cluster is not usable")
        message = f"kubeconfig refused: {error}"
        raise KubeconfigRefused(message) from None


def _refuse(why: str) -> NoReturn:
    message = f"kubeconfig refused: {why}"
    raise KubeconfigRefused(message)


def _load(text: bytes) -> object:
    if len(text) > SIZE_LIMIT:
        _refuse(f"it has {len(text)} bytes, and {SIZE_LIMIT} are allowed")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        depth = 0
        for event in yaml.parse(text, Loader=loader):
            if isinstance(event, AliasEvent):  # a few of them can expand to gigabytes
                _refuse("it contains YAML aliases")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > NESTING_LIMIT:
                _refuse("it is nested too deeply")
        return yaml.load(text, Loader=loader)  # noqa: S506 -- a safe loader
    except yaml.YAMLError as error:  # its text contains lines of the document, which are secret
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark is not None else ""
        _refuse(f"it is not YAML{where}")
    except (ValueError, RecursionError):  # a date that does not exist, an integer of thousands of digits
        _refuse("it is not YAML")


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        _refuse(f"{what} is not a mapping")
    return cast("Mapping[str, Any]", value)


def _text(mapping: Mapping[str, Any], name: str, what: str) -> str:
    value = mapping.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        _refuse(f"{name} of {what} is not a text")
    if name != "password" and any(ord(character) < 32 or ord(character) == 127 for character in value):
        _refuse(f"{name} of {what} contains control characters")  # they could end the line of a header
    return value


def _entry(document: Mapping[str, Any], group: str, content: str, name: str) -> object:
    entries: object = document.get(group) or []
    if not isinstance(entries, list):
        _refuse(f"{group} is not a list")
    found = [cast("Mapping[str, object]", each) for each in cast("Sequence[object]", entries) if isinstance(each, dict)]
    found = [each for each in found if each.get("name") == name]
    if len(found) != 1:
        _refuse(f"{group} has {len(found) or 'no'} {'entries' if found else 'entry'} named {name[:100]!r}")
    return found[0].get(content)


def _check_fields(mapping: Mapping[str, Any], known: frozenset[str], what: str) -> None:
    for name, value in mapping.items():
        if name not in known and value not in (None, "", [], {}):
            _refuse(f"{what}.{str(name)[:100]}: {_REASONS.get(str(name), 'the field is not known')}")


def _server(cluster: Mapping[str, Any], *, insecure: bool) -> str:
    server = _text(cluster, "server", "the cluster")
    try:
        parts = urlsplit(server)
        has_host, _ = bool(parts.hostname), parts.port
    except ValueError:
        has_host, parts = False, urlsplit("")
    if not has_host or parts.scheme not in {"https", "http"} or parts.username or parts.query or parts.fragment:
        _refuse("server of the cluster is not a URL like https://host:6443")
    if not server.isascii() or " " in server:
        _refuse("server of the cluster contains spaces or other characters that a URL cannot contain")
    if parts.scheme == "http" and not insecure:
        _refuse("server of the cluster is not https")
    return server


def _tls(cluster: Mapping[str, Any], user: Mapping[str, Any], *, insecure: bool) -> TlsConfig:
    unverified = cluster.get("insecure-skip-tls-verify") or False
    if unverified is not False and unverified is not True:
        _refuse("insecure-skip-tls-verify of the cluster is not a boolean")
    if unverified and not insecure:
        _refuse("cluster.insecure-skip-tls-verify: the credentials could be sent to another server")
    certificate, key = _pem(user, "client-certificate-data"), _pem(user, "client-key-data")
    if bool(certificate) != bool(key):
        _refuse("client-certificate-data and client-key-data of the user belong together")
    config = TlsConfig(
        ca_data=_pem(cluster, "certificate-authority-data"),
        certificate_data=certificate,
        key_data=key,
        verify=not unverified,
        server_name=_text(cluster, "tls-server-name", "the cluster"),
    )
    try:
        client_context(config)
    except ConfigurationError:
        _refuse("the certificates or the key are not valid")
    return config


def _pem(mapping: Mapping[str, Any], name: str) -> str:
    encoded = mapping.get(name) or ""
    if not isinstance(encoded, str):
        _refuse(f"{name} is not a text")
    try:
        text = base64.b64decode("".join(encoded.split()), validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        _refuse(f"{name} is not base64 of a PEM text")
    if encoded and "-----BEGIN " not in text:
        _refuse(f"{name} is not base64 of a PEM text")
    return text


def _credentials(user: Mapping[str, Any]) -> Credentials:
    token = _text(user, "token", "the user")
    name, password = _text(user, "username", "the user"), _text(user, "password", "the user")
    if token and (name or password):
        _refuse("the user has both a token and a password")
    if any(ord(character) < 33 or ord(character) > 126 for character in token):
        _refuse("token of the user contains characters that a header cannot contain")
    if token:
        return _FixedCredentials(f"Bearer {token}")
    if name or password:
        return _FixedCredentials("Basic " + base64.b64encode(f"{name}:{password}".encode()).decode())
    return _ANONYMOUS
