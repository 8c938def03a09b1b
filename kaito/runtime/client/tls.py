"""Creates TLS contexts from files or PEM texts, and detects changes of the files."""

import hashlib
import os
import ssl
import tempfile
from pathlib import Path
from typing import IO

from kaito.runtime.client.config import TlsConfig
from kaito.runtime.errors import ConfigurationError


def fingerprint(config: TlsConfig) -> bytes:
    """Returns a digest of the files' contents. Kubernetes replaces mounted files by switching a symlink, so that names
    and modification times are not sufficient. A missing file is allowed."""
    digest = hashlib.sha256()
    for name in (config.ca_file, config.certificate_file, config.key_file):
        if name:
            try:
                digest.update(hashlib.sha256(Path(name).read_bytes()).digest())
            except OSError:
                digest.update(b"missing")
    for text in (config.ca_data, config.certificate_data, config.key_data):
        digest.update(hashlib.sha256(text.encode()).digest())
    return digest.digest()


def client_context(config: TlsConfig) -> ssl.SSLContext:
    """Creates a TLS context with the CA and the client certificate.

    Raises:
        ConfigurationError: A file is missing or invalid.
    """
    try:
        context = ssl.create_default_context(cafile=config.ca_file or None, cadata=config.ca_data or None)
        if config.certificate_data:
            _load_certificate(context, config)
        if config.certificate_file:
            context.load_cert_chain(config.certificate_file, config.key_file or None)
    except (OSError, ValueError) as error:  # SSLError is an OSError
        message = f"invalid TLS files (CA {config.ca_file or 'of the system'}): {error}"
        raise ConfigurationError(message) from error
    return _with_options(context, config)


def _load_certificate(context: ssl.SSLContext, config: TlsConfig) -> None:
    """Loads the client certificate from a text: OpenSSL reads only files, so it is in one for this moment.

    On Linux the file is in memory, which also works in containers with a read-only file system.
    """
    text = f"{config.certificate_data}\n{config.key_data}\n".encode()
    with _unnamed_file() as file:
        file.write(text)
        file.flush()
        path = file.name if isinstance(file.name, str) else f"/proc/self/fd/{file.fileno()}"
        context.load_cert_chain(path, password=_no_password)


def _unnamed_file() -> IO[bytes]:
    if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
        return os.fdopen(os.memfd_create("client-certificate", os.MFD_CLOEXEC), "wb")
    return tempfile.NamedTemporaryFile("wb", suffix=".pem")  # readable by this user only


def _no_password() -> str:
    """Refuses an encrypted key: OpenSSL would otherwise wait for a password on the terminal."""
    raise ValueError("the client key is encrypted")


def _with_options(context: ssl.SSLContext, config: TlsConfig) -> ssl.SSLContext:
    if config.strict_x509:  # set explicitly: the default depends on Python's version
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    else:
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not config.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
