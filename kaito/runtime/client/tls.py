"""Creates TLS contexts from files, and detects changes of the files."""

import hashlib
import ssl
from pathlib import Path

from kaito.runtime.client.config import TlsConfig
from kaito.runtime.errors import ConfigurationError


def fingerprint(config: TlsConfig) -> bytes:
    """Return a digest of the files' contents. Kubernetes replaces mounted files by switching a symlink, so that names
    and modification times are not sufficient. A missing file is allowed."""
    digest = hashlib.sha256()
    for name in (config.ca_file, config.certificate_file, config.key_file):
        if name:
            try:
                digest.update(hashlib.sha256(Path(name).read_bytes()).digest())
            except OSError:
                digest.update(b"missing")
    return digest.digest()


def client_context(config: TlsConfig) -> ssl.SSLContext:
    """Create a TLS context with the CA and the client certificate.

    Raises:
        ConfigurationError: A file is missing or invalid.
    """
    try:
        context = ssl.create_default_context(cafile=config.ca_file or None)
        if config.certificate_file:
            context.load_cert_chain(config.certificate_file, config.key_file or None)
    except (OSError, ValueError) as error:  # SSLError is an OSError
        message = f"invalid TLS files (CA {config.ca_file or 'of the system'}): {error}"
        raise ConfigurationError(message) from error
    if config.strict_x509:  # set explicitly: the default depends on Python's version
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    else:
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not config.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
