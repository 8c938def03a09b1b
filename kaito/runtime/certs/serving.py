"""The TLS context of a server, whose certificate can be replaced at any time.

Handshakes after `load` use the new certificate; open connections are not affected. An invalid certificate is rejected,
and the previous one stays.
"""

import asyncio
import ssl
import tempfile
from datetime import datetime
from pathlib import Path
from typing import final

from kaito.runtime.certs.authority import KeyPair
from kaito.runtime.metrics import Metrics


class InvalidKeyPair(Exception):
    """Certificate and key are not valid, or do not match."""


@final
class ServingContext:
    """One server's TLS context.

    Args:
        metrics: counts reads of certificates.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.context: ssl.SSLContext = server_context()
        self._metrics = metrics
        self._loaded: KeyPair | None = None
        self._ready = asyncio.Event()
        self.problem: str = "no certificate yet"
        """Why there is no certificate, or why the newest was rejected; empty if there is no problem."""

    def load(self, pair: KeyPair) -> bool:
        """Uses a certificate from now on. Returns False if it is in use already.

        Raises:
            InvalidKeyPair: the certificate is not valid; the previous one stays.
        """
        if pair == self._loaded:
            return False
        self._metrics.certificate_reads.inc()
        with tempfile.TemporaryDirectory(prefix="serving-cert-") as directory:
            chain, key = Path(directory, "tls.crt"), Path(directory, "tls.key")
            chain.write_bytes(pair.certificate)
            key.touch(mode=0o600)
            key.write_bytes(pair.key)
            try:
                # A trial first: a failure must not leave the context with half of the pair.
                server_context().load_cert_chain(chain, key)
                self.context.load_cert_chain(chain, key)
            except (ssl.SSLError, ValueError) as error:
                self.record_failure(f"certificate and key are not valid or do not match: {error}")
                raise InvalidKeyPair(self.problem) from error
        self._loaded = pair
        self.problem = ""
        self._ready.set()
        return True

    def record_failure(self, reason: str) -> None:
        """Records why no newer certificate is available."""
        self._metrics.certificate_errors.inc()
        self.problem = reason

    async def wait_ready(self) -> None:
        """Waits until there is a certificate."""
        await self._ready.wait()

    def check(self, now: datetime) -> str | None:
        """The readiness check: why there is no valid certificate; None if there is one."""
        if self._loaded is None:
            return self.problem
        expires = self._loaded.expires_at
        return f"the certificate expired at {expires:%Y-%m-%dT%H:%M:%SZ}: {self.problem}" if now >= expires else None


def server_context() -> ssl.SSLContext:
    """Makes a server context without a certificate: TLS 1.2 or newer, HTTP/1.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context
