"""Credential plugins of a kubeconfig (`user.exec`): programs that print a token or a certificate.

Implements "client-go credential plugins" of the Kubernetes documentation. A plugin is killed with its child processes
after 60 s (`program`). Interactive plugins are not supported.
"""

import asyncio
import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, final

from kaito.runtime.client.patch import is_object
from kaito.runtime.client.program import ProgramOutputTooLarge, ProgramTimeout, run_program
from kaito.runtime.clock import Clock, SystemClock
from kaito.runtime.errors import ConfigurationError, TransportError
from kaito.runtime.logging import get_logger

PLUGIN_SECONDS = 60.0
"""Time limit of a plugin, which may send requests to an identity provider."""

EXPIRY_SKEW = timedelta(minutes=5)
"""A credential is renewed this long before it expires; one with a shorter lifetime, after half of it."""

_CLUSTER_INFO = ("server", "tls-server-name", "insecure-skip-tls-verify", "certificate-authority-data", "proxy-url")

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ExecCredential:
    """Credential printed by a plugin."""

    token: str = field(default="", repr=False)
    certificate: str = field(default="", repr=False)
    key: str = field(default="", repr=False)
    expires: datetime | None = None


@final
class ExecPlugin:
    """Credential plugin, as configured in a kubeconfig."""

    def __init__(self, config: Mapping[str, Any], cluster: Mapping[str, Any], *, directory: str = "") -> None:
        """Reads the `exec` entry of a user, for a cluster.

        Raises:
            ConfigurationError: The entry is incomplete, or the plugin is interactive.
        """
        for name in ("command", "apiVersion"):
            if not config.get(name):
                message = f"user.exec of the kubeconfig has no {name}"
                raise ConfigurationError(message)
        if config.get("interactiveMode") == "Always":
            message = f"exec plugin {config['command']} is interactive (interactiveMode: Always), not supported"
            raise ConfigurationError(message)
        command = str(config["command"])
        self._command = str(Path(directory, command)) if "/" in command else command
        arguments: list[Any] = config.get("args") or []
        variables: list[dict[str, Any]] = config.get("env") or []
        self._arguments = [str(argument) for argument in arguments]
        self._variables = {str(item["name"]): str(item["value"]) for item in variables}
        self._api_version = str(config["apiVersion"])
        self._hint = str(config.get("installHint") or "")
        spec: dict[str, Any] = {"interactive": False}
        if config.get("provideClusterInfo"):
            spec["cluster"] = {name: cluster[name] for name in _CLUSTER_INFO if name in cluster}
        self._info = json.dumps({"apiVersion": self._api_version, "kind": "ExecCredential", "spec": spec})

    async def run(self) -> ExecCredential:
        """Runs the plugin.

        Raises:
            TransportError: It does not exist, fails, times out, or prints something else than a credential.
        """
        environment = os.environ | self._variables | {"KUBERNETES_EXEC_INFO": self._info}
        command = (self._command, *self._arguments)
        try:
            finished = await run_program(command, environment=environment, seconds=PLUGIN_SECONDS)
        except OSError as error:
            message = f"credential plugin {self._command} did not start: {error.strerror}. {self._hint}".rstrip()
            raise TransportError(message) from error
        except ProgramTimeout as error:
            message = f"credential plugin {self._command} took {error}"
            raise TransportError(message) from error
        except ProgramOutputTooLarge as error:
            message = f"credential plugin {self._command} printed {error}"
            raise TransportError(message) from error
        if finished.code:
            stderr = finished.stderr.decode("utf-8", "replace").strip()[-512:]
            message = f"credential plugin {self._command} failed with exit code {finished.code}: {stderr}"
            raise TransportError(message)
        return self._parse(finished.stdout)

    def _parse(self, printed: bytes) -> ExecCredential:
        problem = ""
        try:
            answer: object = json.loads(printed)
        except ValueError:
            answer = None
        if not is_object(answer) or answer.get("kind") != "ExecCredential" or not is_object(answer.get("status")):
            problem = "did not print an ExecCredential"
        elif answer.get("apiVersion") != self._api_version:
            problem = f"printed apiVersion {answer.get('apiVersion')}, but {self._api_version} is configured"
        else:
            status: Mapping[str, Any] = answer["status"]
            credential = ExecCredential(
                token=str(status.get("token") or ""),
                certificate=str(status.get("clientCertificateData") or ""),
                key=str(status.get("clientKeyData") or ""),
                expires=self._moment(str(status.get("expirationTimestamp") or "")),
            )
            if credential.token or (credential.certificate and credential.key):
                return credential
            problem = "printed neither a token nor a certificate with its key"
        message = f"credential plugin {self._command} {problem}"
        raise TransportError(message)

    def _moment(self, text: str) -> datetime | None:
        if not text:
            return None
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            message = (
                f"credential plugin {self._command} printed expirationTimestamp {text[:64]!r}: not an RFC 3339 time"
            )
            raise TransportError(message)
        return moment


@final
class ExecCredentials:
    """Credentials from a plugin, which runs again before they expire and when the server rejects them."""

    def __init__(self, plugin: ExecPlugin, *, clock: Clock | None = None) -> None:
        self._plugin = plugin
        self._clock = clock or SystemClock()
        self._credential: ExecCredential | None = None
        self._skew = EXPIRY_SKEW
        self._refreshing = asyncio.Lock()
        self._directory: Path | None = None

    async def header(self) -> str:
        """Returns the bearer token; empty if the plugin provides certificates."""
        async with self._refreshing:
            credential = self._credential
            if credential is None:
                credential = await self._refresh()
            elif credential.expires is not None and self._clock.now() >= credential.expires - self._skew:
                try:
                    credential = await self._refresh()
                except TransportError as error:
                    if self._clock.now() >= (credential.expires or self._clock.now()):
                        raise
                    _log.warning("credential plugin failed, keeping the last credential", error=str(error))
        return _header(credential)

    async def renew(self, header: str) -> bool:
        """Runs the plugin again, unless it already ran after the request with `header` was sent."""
        async with self._refreshing:
            if self._credential is None or _header(self._credential) == header:
                before = self._credential
                return _header(await self._refresh()) != header or self._credential != before
        return True

    async def certificate_files(self) -> tuple[str, str]:
        """Returns the files of the client certificate and key, which are kept current; empty names if it provides
        tokens."""
        await self.header()
        if self._directory is None:
            return "", ""
        return str(self._directory / "tls.crt"), str(self._directory / "tls.key")

    async def _refresh(self) -> ExecCredential:
        credential = await self._plugin.run()
        if credential.certificate:
            await asyncio.to_thread(self._store, credential)
        self._credential = credential
        if credential.expires is not None:
            lifetime_seconds = credential.expires - self._clock.now()
            self._skew = EXPIRY_SKEW if lifetime_seconds > EXPIRY_SKEW else lifetime_seconds / 2
        return credential

    def _store(self, credential: ExecCredential) -> None:
        """Writes the certificate to files: `ssl` reads no other source. The directory (0700) is deleted with this
        object."""
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="exec-credential-"))
            weakref.finalize(self, shutil.rmtree, self._directory, ignore_errors=True)
        (self._directory / "tls.key").write_text(credential.key)
        (self._directory / "tls.crt").write_text(credential.certificate)


def _header(credential: ExecCredential) -> str:
    return f"Bearer {credential.token}" if credential.token else ""
