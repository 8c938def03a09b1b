"""TLS contexts from files, and a fingerprint that tells when the files say something new."""

import hashlib
import ssl
from pathlib import Path

from kaito.runtime.client.config import TlsConfig
from kaito.runtime.errors import ConfigurationError


def fingerprint(config: TlsConfig) -> bytes:
    """Changes when the content of a file changes. Kubernetes replaces mounted files by switching a symlink, so neither
    the name nor the time of a file tells. A file that is missing for a moment counts as empty."""
    digest = hashlib.sha256()
    for name in (config.ca_file, config.certificate_file, config.key_file):
        if name:
            try:
                digest.update(hashlib.sha256(Path(name).read_bytes()).digest())
            except OSError:
                digest.update(b"missing")
    return digest.digest()


def client_context(config: TlsConfig) -> ssl.SSLContext:
    """A context that trusts the config's CA and shows its certificate.

    Raises:
        ConfigurationError: a file is missing or is not what it should be.
    """
    try:
        context = ssl.create_default_context(cafile=config.ca_file or None)
        if config.certificate_file:
            context.load_cert_chain(config.certificate_file, config.key_file or None)
    except (OSError, ValueError) as error:  # SSLError is an OSError
        message = f"TLS files not usable (CA {config.ca_file or 'of the system'}): {error}"
        raise ConfigurationError(message) from error
    if config.strict_x509:  # said either way: the default depends on Python's version
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    else:
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not config.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
